// Package witness follows real packets along the way of a request, by what nodes
// saw of them, and names the hop at which they were lost. Inputs are the cases,
// what nodes saw and the report of what they hold; the output is that report, to
// which the packets' testimony is added: a hop that lets a packet pass is not
// broken, and one behind which it was lost cannot be the reason. It refuses to
// say anything of what nobody could watch.
package witness

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/trace"
	"poplin.dev/poplin/pkg/trace/way"
)

// Results of a request.
const (
	answered  = "answered"
	delivered = "delivered" // a datagram, which nobody has to answer
	refused   = "refused"
	lost      = "lost"
	unknown   = "unknown"
)

// judge follows one request.
type judge struct {
	*way.Case
	probe *way.Probe
	leg   way.Leg
	port  uint16 // of the client
	// masked is the client as the receiver sees it.
	masked netip.AddrPort
	out    *facts.Outcome
	hop    way.Hop
}

// Judge adds the testimony of real packets to a report.
func Judge(in *way.Input, r *way.Report, cases []way.Case, p way.Probe) {
	all, early := len(p.Legs) > 0, false
	proved := map[netip.AddrPort]bool{}
	var found []way.Hop
	for _, leg := range p.Legs {
		if leg.Port == 0 && !p.Live {
			continue
		}
		j := judge{Case: &cases[leg.Case], probe: &p, leg: leg, port: leg.Port}
		w := j.follow(cases)
		if p.Live && (w.Result == unknown || slices.ContainsFunc(r.Probe, w.Same)) {
			continue // another way is the one that somebody took
		}
		r.Probe = append(r.Probe, w)
		proved[j.Dst] = proved[j.Dst] || w.Result == answered
		all = all && w.Result == answered
		if j.hop.Hop != "" {
			early = early || j.hop.Hop != way.Return && !slices.ContainsFunc(w.Steps, func(s way.Step) bool { return s.Seen && strings.HasSuffix(s.Where, "answer") })
			found = append(found, j.hop)
		}
	}
	for _, c := range cases {
		all = all && proved[c.Dst]
	}
	if p.Live {
		all = false // others may have come that did not
	}
	for _, page := range p.Pages {
		w, h := read(in, &p, page)
		r.Probe = append(r.Probe, w)
		if all = all && w.Result == answered; h.Hop != "" {
			found = append(found, h)
		}
	}
	if p.Lookup != nil {
		w, h := looked(in, &p)
		r.Probe = append(r.Probe, w)
		if h.Hop != "" { // it comes first
			found = append([]way.Hop{h}, found...)
		}
	}
	if len(r.Probe) == 0 {
		h := way.Hop{Hop: way.Socket, About: "a real packet", Status: way.OK}
		if p.Live {
			h.Unknown("nobody made such a request while nodes looked out%s", reasons(&p))
		} else {
			h.Unknown("no request could be made: nobody on the way could make one%s", reasons(&p))
		}
		found = append(found, h)
	}
	for i := range r.Hops {
		h := &r.Hops[i]
		switch {
		case h.Status != way.Broken:
		case all && slices.Contains(passed, h.Hop):
			h.Status = way.Suspect
			h.Saw("all the same, real packets passed and were answered")
		case early && h.Hop == way.Return:
			h.Status = way.Suspect
			h.Saw("a real packet was lost before there was an answer")
		}
	}
	// What the nodes hold says why, what was seen says only where.
	if !slices.ContainsFunc(r.Hops, func(h way.Hop) bool { return h.Status == way.Broken }) {
		r.Hops = append(r.Hops, found...)
	}
	r.Hop, r.Node, r.Cause, r.Cure = "", "", "", ""
	r.Conclude()
}

// passed are hops that are not broken where a packet has passed. Larger packets,
// older connections and other endpoints are not proved by it.
var passed = []way.Class{
	way.Firewall, way.ServiceProgram, way.PolicyEgress, way.Route, way.Sysctl, way.Overlay, way.Underlay, way.Decapsulation, way.Guard,
	way.PolicyIngress, way.PodLink, way.PodAddress, way.PodRoute, way.Return,
}

func reasons(p *way.Probe) string {
	for node, why := range p.Absent {
		return "; node " + node + ": " + why
	}
	return ""
}

// follow finds where the packet was seen.
func (j *judge) follow(cases []way.Case) way.Witness {
	w := way.Witness{From: j.Src.String(), To: j.Front.String() + "/" + j.Proto.String(), Result: unknown}
	j.outcome()
	j.client()
	j.endpoint(cases)
	w.Endpoint = j.Dst.String()
	list := points(j.Case, j.leg.Sender)
	at, missing := -1, -1
	for i, p := range list {
		if !j.watched(p) {
			continue
		}
		seen := j.seen(p)
		w.Steps = append(w.Steps, way.Step{Node: p.node, Where: p.where, Seen: seen})
		if seen {
			at, missing = i, -1
		} else if missing < 0 {
			missing = i
		}
	}
	received := slices.ContainsFunc(list[:at+1], func(p point) bool { return p.hook == "input" && !p.outer && !p.back && j.seen(p) })
	switch {
	case j.out != nil && j.out.Unsent, j.probe.Live && at < 0:
		w.Why = "no packet was seen"
		if j.out != nil {
			w.Why = j.out.Error
		}
		j.hop = way.Hop{Hop: way.Socket, About: "a real packet to " + w.To, Status: way.OK}
		j.hop.Unknown("no request could be followed: %s", w.Why)
		return w
	case j.out == nil && j.probe.Live && (at == len(list)-1 || j.answeredLive(list)):
		w.Result = answered
	case j.out == nil && !j.probe.Live:
		w.Why = "node " + j.leg.Sender + ": " + j.probe.Absent[j.leg.Sender]
		j.hop = way.Hop{Hop: way.Socket, About: "a real packet to " + w.To, Status: way.OK}
		j.hop.Unknown("no request could be made: %s", w.Why)
		return w
	case j.out != nil && j.out.Answered:
		w.Result = answered
	case j.Proto == service.UDP && received && (j.out == nil || !j.out.Refused):
		w.Result = delivered
	case j.out != nil && j.out.Refused:
		w.Result = refused
	default:
		w.Result = lost
	}
	if w.Result == lost || w.Result == refused {
		j.blame(list, at, missing, w.Result)
		w.Why = j.hop.Cause
	}
	return w
}

func (j *judge) answeredLive(list []point) bool {
	return slices.ContainsFunc(list, func(p point) bool {
		return p.back && p.class == way.Return && strings.Contains(p.where, "client") && j.seen(p)
	})
}

func (j *judge) outcome() {
	for _, o := range j.probe.Seen[j.leg.Sender].Outcomes {
		if o.Port == j.leg.Port {
			j.out = &o
		}
	}
}

// client finds out, of somebody's packets, which connection is followed.
func (j *judge) client() {
	for _, s := range j.probe.Seen[j.Enters].Sightings {
		if j.port == 0 && !s.Outer && !s.Back && s.Point != "" && s.Dst == j.Front {
			j.port = s.Src.Port()
		}
	}
}

// endpoint finds out which one a Service chose, and as whom the client is known
// there.
func (j *judge) endpoint(cases []way.Case) {
	for _, s := range j.probe.Seen[j.Enters].Sightings {
		if s.Pod.IsValid() || s.Outer || s.Back || s.Point != facts.End || s.Hook != "postrouting" && s.Hook != "input" || !j.sameRequest(s) {
			continue
		}
		for i, c := range cases {
			if c.Front == j.Front && c.Dst == s.Dst && c.Enters == j.Enters {
				j.Case = &cases[i]
			}
		}
		j.masked = s.Src
	}
}

// sameRequest finds the packet before and after translation at the first node:
// its client has the port that it came with, or nobody else's.
func (j *judge) sameRequest(s facts.Sighting) bool {
	if s.Src.Port() == j.port {
		return true
	}
	for _, o := range j.probe.Seen[j.Enters].Sightings {
		if o.Packet == s.Packet && o.Src.Port() == j.port && !o.Outer {
			return true
		}
	}
	return false
}

func (j *judge) watched(p point) bool {
	w, known := j.probe.Seen[p.node]
	key := ""
	if p.pod.IsValid() {
		key = p.pod.String()
	}
	_, hidden := w.Hidden[key]
	return known && !hidden
}

// seen reports whether the packet was at a point.
func (j *judge) seen(p point) bool {
	return slices.ContainsFunc(j.probe.Seen[p.node].Sightings, func(s facts.Sighting) bool {
		return s.Point == p.end && s.Hook == p.hook && s.Pod == p.pod && s.Outer == p.outer && s.Back == p.back && j.mine(s)
	})
}

// mine reports whether a sighting is of the packet that is followed.
func (j *judge) mine(s facts.Sighting) bool {
	if s.Outer {
		return s.Of == j.Dst
	}
	client, server := s.Src, s.Dst
	if s.Back {
		client, server = server, client
	}
	return (server == j.Front || server == j.Dst) && (client.Port() == j.port || client == j.masked)
}

// blame names the hop.
func (j *judge) blame(list []point, at, missing int, result string) {
	h := way.Hop{About: "a real packet", Status: way.OK}
	for _, p := range list[:at+1] {
		if j.watched(p) {
			h.Saw("on node %s it %s", p.node, p.where)
		}
	}
	if node, s, ok := j.dropped(); ok {
		h.Hop, h.Node = j.classOf(node, s), node
		where := "policy drop of chain " + s.Chain
		if s.Handle != 0 {
			where = fmt.Sprintf("chain %s, rule handle %d", s.Chain, s.Handle)
		}
		h.Broken(cure(s), "a real packet was dropped there: %s", where)
		j.hop = h
		return
	}
	if j.untranslated() {
		h.Hop, h.Node = way.Conntrack, j.Enters
		h.Broken("nft list ruleset # on node "+j.Enters+": what sets zones or spares packets connection tracking",
			"the answer came from %s and was not translated back to %s: connection tracking does not know it", j.Dst, j.Front)
		j.hop = h
		return
	}
	switch {
	case result == refused && slices.ContainsFunc(list, func(p point) bool { return p.class == way.Socket && j.seen(p) }):
		h.Hop, h.Node = way.Socket, j.Node
		h.Broken("kubectl logs, or a Service's targetPort", "a real packet came to %s, and nobody listens there", j.Dst)
	case missing < 0:
		h.Hop = way.Socket
		h.Unknown("a real packet was not answered, and where it was lost cannot be seen: pods are not watched")
	default:
		p := list[missing]
		h.Hop, h.Node = j.reason(p)
		h.Broken("poplinctl render "+h.Node, "a real packet got lost there: it never %s", p.where)
	}
	j.hop = h
}

// dropped finds the rule that did, of anybody's.
func (j *judge) dropped() (string, facts.Sighting, bool) {
	for _, node := range []string{j.leg.Sender, j.Enters, j.Node} {
		for _, s := range j.probe.Seen[node].Sightings {
			back := s
			back.Back = true
			if s.Drops && (s.Outer || j.mine(s) || j.mine(back)) {
				return node, s, true
			}
		}
	}
	return "", facts.Sighting{}, false
}

func (j *judge) classOf(node string, s facts.Sighting) way.Class {
	_, chain, _ := strings.Cut(s.Chain, " ")
	table, _, _ := strings.Cut(chain, " ")
	switch table {
	case "poplin":
		return way.Guard
	case "poplin-services":
		return way.ServiceProgram
	case "poplin-policy":
		explain := j.Desired[node].Explain
		if node == j.Enters && j.Origin == trace.FromPod && (node != j.Node || explain != nil && explain(true, j.From, j.Dst, j.Proto) != "") {
			return way.PolicyEgress
		}
		return way.PolicyIngress
	}
	return way.Firewall
}

func cure(s facts.Sighting) string {
	if s.Handle == 0 {
		return "nft list chain " + s.Chain
	}
	return fmt.Sprintf("nft delete rule %s handle %d", s.Chain, s.Handle)
}

// untranslated reports whether an answer of a Service is on its way to the client
// under its endpoint's address.
func (j *judge) untranslated() bool {
	if !j.Translated() {
		return false
	}
	raw := false
	for _, s := range j.probe.Seen[j.Enters].Sightings {
		last := s.Point == facts.End && (s.Hook == "postrouting" || s.Hook == "input") && s.Back && !s.Outer && s.Dst.Port() == j.port
		if last && s.Src == j.Front {
			return false
		}
		raw = raw || last && s.Src == j.Dst
	}
	return raw
}

// reason asks the kernel's own counters why a packet did not get to a point.
func (j *judge) reason(p point) (way.Class, string) {
	counted := j.probe.Seen[p.node].Reasons
	f := j.Facts[p.node]
	if p.hook != "forward" || p.pod.IsValid() {
		return p.class, p.node
	}
	switch {
	case f.Flows != nil && f.Flows.Max > 0 && f.Flows.Count >= f.Flows.Max:
		return way.Conntrack, p.node
	case counted["IPReversePathFilter"] > 0:
		return way.Sysctl, p.node
	case counted["InAddrErrors"]+counted["Ip6InAddrErrors"] > 0 && f.Network != nil && j.forwardingOff(&f):
		return way.Sysctl, p.node
	}
	return p.class, p.node
}

func (j *judge) forwardingOff(f *facts.Node) bool {
	if j.Dst.Addr().Is4() {
		return f.Network.Sysctls["ipv4/ip_forward"] == "0"
	}
	return f.Network.Sysctls["ipv6/conf/all/forwarding"] == "0"
}
