package witness

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"net/netip"
	"testing"

	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/program"
	"poplin.dev/poplin/pkg/program/web"
	"poplin.dev/poplin/pkg/trace"
	"poplin.dev/poplin/pkg/trace/way"
)

var (
	client = netip.MustParseAddrPort("10.244.1.2:12345")
	vip    = netip.MustParseAddrPort("10.96.0.7:80")
	server = netip.MustParseAddrPort("10.244.2.2:8080")
)

// journey is a pod's request to a Service, through the overlay, of which the
// first places saw the packet.
func journey(places int) ([]way.Case, way.Probe) {
	in := &way.Input{Desired: map[string]way.Desired{}, Facts: map[string]facts.Node{"a": {}, "b": {}}}
	net := program.Net{}
	net.Link.Name = "poplin-vx"
	net.Routes = []program.Route{{Dst: netip.MustParsePrefix("10.244.2.0/24"), Dev: "poplin-vx"}}
	in.Desired["a"] = way.Desired{Net: net}
	c := way.Case{
		Input: in, From: client.Addr(), Enters: "a", Origin: trace.FromPod, Front: vip, Dst: server, Proto: service.TCP,
		Pod: &object.Pod{}, Node: "b", Src: way.End{Pod: &object.Pod{}},
	}
	p := way.Probe{Seen: map[string]facts.Watched{}, Absent: map[string]string{}}
	p.Legs = []way.Leg{{Sender: "a", Request: facts.Request{Pod: client.Addr(), To: vip, Proto: service.TCP, Port: client.Port()}}}
	p.Seen["b"] = facts.Watched{}
	p.Seen["a"] = facts.Watched{Outcomes: []facts.Outcome{{Request: p.Legs[0].Request, Answered: places < 0, Error: "i/o timeout"}}}
	translated := false
	for i, at := range points(&c, "a") {
		if i == places {
			break
		}
		w := p.Seen[at.node]
		s := facts.Sighting{Packet: uint32(i), Pod: at.pod, Hook: at.hook, Point: at.end, Outer: at.outer, Back: at.back, Of: server}
		translated = translated || at.node == "a" && at.hook == "forward"
		to := vip
		if translated && at.pod != client.Addr() && (!at.back || at.node != "a" || at.hook != "postrouting") {
			to = server
		}
		if s.Src, s.Dst = client, to; at.back {
			s.Src, s.Dst = to, client
		}
		w.Sightings = append(w.Sightings, s)
		p.Seen[at.node] = w
	}
	return []way.Case{c}, p
}

// The hop is the first place that did not see the packet, whichever it is.
func TestJudge(t *testing.T) {
	cases, _ := journey(0)
	list := points(&cases[0], "a")
	for i := range list {
		cases, p := journey(i)
		var r way.Report
		Judge(cases[0].Input, &r, cases, p)
		if r.Status != way.Broken || r.Hop != list[i].class || r.Node != list[i].node || r.Probe[0].Result != lost {
			t.Errorf("it never %s on node %s: %s at %s of node %s, want %s", list[i].where, list[i].node, r.Status, r.Hop, r.Node, list[i].class)
		}
	}
	// An answered one clears what it has passed, and nothing else.
	cases, p := journey(-1)
	r := way.Report{Hops: []way.Hop{{Hop: way.Route, Status: way.Broken}, {Hop: way.MTU, Status: way.Broken}}}
	Judge(cases[0].Input, &r, cases, p)
	if r.Hops[0].Status != way.Suspect || r.Hop != way.MTU || r.Probe[0].Result != answered || r.Probe[0].Endpoint != server.String() {
		t.Errorf("an answered request: %+v", r)
	}
	// One that got lost early clears the way back.
	cases, p = journey(4)
	r = way.Report{Hops: []way.Hop{{Hop: way.Return, Status: way.Broken}}}
	Judge(cases[0].Input, &r, cases, p)
	if r.Hops[0].Status != way.Suspect || r.Hop != list[4].class {
		t.Errorf("a request lost at %s: %s", list[4].where, r.Hop)
	}
	// What nodes hold says why.
	cases, p = journey(4)
	r = way.Report{Hops: []way.Hop{{Hop: way.Node, Status: way.Broken}}}
	if Judge(cases[0].Input, &r, cases, p); r.Hop != way.Node {
		t.Errorf("a node that is known to be broken: %s", r.Hop)
	}
	// Somebody's is followed by the port that it came with, and told once.
	cases, p = journey(-1)
	p.Live, p.Legs = true, []way.Leg{{Sender: "a"}, {Sender: "a"}}
	r = way.Report{}
	Judge(cases[0].Input, &r, cases, p)
	if len(r.Probe) != 1 || r.Probe[0].Result != answered || r.Status != way.OK {
		t.Errorf("somebody's request: %s, %+v", r.Status, r.Probe)
	}
	cases, p = journey(0)
	p.Live, p.Legs = true, []way.Leg{{Sender: "a"}}
	r = way.Report{}
	if Judge(cases[0].Input, &r, cases, p); r.Status != way.Unknown {
		t.Errorf("nobody's request: %s", r.Status)
	}
	// Nobody could send: that is no OK.
	cases, p = journey(0)
	p.Seen["a"] = facts.Watched{Outcomes: []facts.Outcome{{Request: p.Legs[0].Request, Unsent: true, Error: "needs node access"}}}
	r = way.Report{}
	if Judge(cases[0].Input, &r, cases, p); r.Status != way.Unknown {
		t.Errorf("a request that was not made: %s", r.Status)
	}
}

// The rule that dropped a packet is what counts, and the kernel's counters where
// no rule did.
func TestReasons(t *testing.T) {
	for _, of := range []struct {
		name    string
		chain   string
		reasons map[string]int
		want    way.Class
	}{
		{"foreign", "inet wall in", nil, way.Firewall},
		{"guard", "inet poplin forward", nil, way.Guard},
		{"policy", "inet poplin-policy forward", nil, way.PolicyEgress},
		{"services", "inet poplin-services filter", nil, way.ServiceProgram},
		{"reverse path", "", map[string]int{"IPReversePathFilter": 1}, way.Sysctl},
		{"nothing", "", nil, way.Route},
	} {
		cases, p := journey(2)
		w := p.Seen["a"]
		w.Reasons = of.reasons
		if of.chain != "" {
			w.Sightings = append(w.Sightings, facts.Sighting{Hook: "forward", Chain: of.chain, Handle: 7, Drops: true, Src: client, Dst: server})
		}
		p.Seen["a"] = w
		var r way.Report
		if Judge(cases[0].Input, &r, cases, p); r.Hop != of.want || r.Node != "a" {
			t.Errorf("%s: %s on node %s, want %s", of.name, r.Hop, r.Node, of.want)
		}
	}
	// An answer that nobody translates back belongs to no connection.
	cases, p := journey(22)
	w := p.Seen["a"]
	last := &w.Sightings[len(w.Sightings)-1]
	if last.Src = server; last.Hook != "postrouting" {
		t.Fatalf("not the answer's last hook: %+v", last)
	}
	var r way.Report
	if Judge(cases[0].Input, &r, cases, p); r.Hop != way.Conntrack {
		t.Errorf("an answer that was not translated: %s", r.Hop)
	}
}

// A replica of the Ingress controller that shows another certificate, or none, or
// knows no route, is behind.
func TestPage(t *testing.T) {
	right := &web.Certificate{Certificate: tls.Certificate{Certificate: [][]byte{[]byte("right")}}}
	in := &way.Input{Web: &way.Web{TLS: true, Host: "shop.example.com", Path: "/", Program: &web.Program{Certificates: map[string]*web.Certificate{"shop.example.com": right}}}}
	sum := sha256.Sum256([]byte("right"))
	page := way.Page{Node: "a", Replica: "poplin-system/poplin-ingress-1", Request: facts.Request{Port: 7, URL: "https://shop.example.com/"}}
	for _, of := range []struct {
		name string
		out  facts.Outcome
		want way.Class
	}{
		{"right", facts.Outcome{Answered: true, Status: 404, Certificate: hex.EncodeToString(sum[:])}, ""},
		{"other", facts.Outcome{Answered: true, Status: 200, Certificate: "00"}, way.IngressProgram},
		{"none", facts.Outcome{Answered: true, Refused: true}, way.IngressProgram},
		{"not reached", facts.Outcome{Refused: true}, ""},
	} {
		of.out.Port = page.Port
		p := way.Probe{Seen: map[string]facts.Watched{"a": {Outcomes: []facts.Outcome{of.out}}}}
		if _, h := read(in, &p, page); h.Hop != of.want {
			t.Errorf("%s: hop %q, want %q", of.name, h.Hop, of.want)
		}
	}
}

// A name server that does not answer is the hop before all others; one that does
// not know a name may learn it.
func TestLooked(t *testing.T) {
	for _, of := range []struct {
		name string
		out  facts.Outcome
		want way.Status
		hop  way.Class
	}{
		{"answered", facts.Outcome{Answered: true}, way.OK, ""},
		{"no such name", facts.Outcome{Refused: true}, way.Suspect, way.DNS},
		{"silence", facts.Outcome{Error: "i/o timeout"}, way.Broken, way.DNS},
		{"not asked", facts.Outcome{Unsent: true, Error: "needs node access"}, way.Unknown, way.DNS},
	} {
		cases, p := journey(-1)
		p.Lookup = &way.Leg{Sender: "a", Request: facts.Request{Port: 7, Name: "web.default.svc.cluster.local."}}
		of.out.Port = 7
		w := p.Seen["a"]
		w.Outcomes = append(w.Outcomes, of.out)
		p.Seen["a"] = w
		var r way.Report
		if Judge(cases[0].Input, &r, cases, p); r.Status != of.want || r.Hop != of.hop {
			t.Errorf("%s: %s %s, want %s %s", of.name, r.Status, r.Hop, of.want, of.hop)
		}
	}
}
