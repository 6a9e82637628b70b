package render

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/overlay"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/pkg/program/vip"
	"poplin.dev/poplin/pkg/trace/way"
)

// node is one with a peer, as its kernel and its compiler have it.
func node() (facts.Node, way.Desired) {
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	its := cluster.Node{Name: "b", PodCIDRs: []netip.Prefix{prefix("10.244.2.0/24"), prefix("fd00:2::/64")}, MTU: 1450,
		VTEP: cluster.VTEP{Addr: addr("172.30.0.12"), MAC: cluster.MACOf("b")}}
	me := overlay.Self{Name: "a", PodCIDRs: []netip.Prefix{prefix("10.244.1.0/24"), prefix("fd00:1::/64")}, MAC: cluster.MACOf("a"), MTU: 1450, VNI: 1, Port: 8472,
		Underlay: cluster.Underlay{Link: "eth0", Addr: addr("172.30.0.11"), MTU: 1500}}
	d := way.Desired{Net: overlay.Compile(me, []cluster.Node{its}), Services: vip.New(), Policy: permit.New()}
	own, peer := me.MAC.String(), its.VTEP.MAC.String()
	vx := overlay.Link
	f := facts.Node{Rules: &facts.Rules{}, Network: &facts.Network{
		Links: []facts.Link{
			{Name: "eth0", MTU: 1500, Addresses: []netip.Prefix{prefix("172.30.0.11/24")}},
			{Name: vx, MTU: 1450, MAC: own, Addresses: []netip.Prefix{prefix("10.244.1.0/32"), prefix("fd00:1::/128"), prefix("fe80::1/64")},
				VXLAN: &facts.VXLAN{VNI: 1, Port: 8472, Local: addr("172.30.0.11")}},
		},
		Neighs: []facts.Neigh{
			{Addr: addr("10.244.2.0"), Dev: vx, MAC: peer, State: "permanent"}, {Addr: addr("fd00:2::"), Dev: vx, MAC: peer, State: "permanent"},
			{Addr: addr("172.30.0.12"), Dev: "eth0", MAC: peer, State: "reachable"},
		},
		FDB: []facts.Forward{{MAC: peer, Dst: addr("172.30.0.12")}},
		Routes: []facts.Route{
			{Dst: prefix("10.244.2.0/24"), Kind: "unicast", Via: addr("10.244.2.0"), Dev: vx, Protocol: 157},
			{Dst: prefix("fd00:2::/64"), Kind: "unicast", Via: addr("fd00:2::"), Dev: vx, Protocol: 157, Metric: 1024},
			{Dst: prefix("10.244.1.0/24"), Kind: "unreachable", Protocol: 157, Metric: 4096},
			{Dst: prefix("fd00:1::/64"), Kind: "unreachable", Dev: "lo", Protocol: 157, Metric: 4096},
			{Dst: prefix("10.244.1.5/32"), Kind: "unicast", Dev: "plw0", Protocol: 157}, // a pod's
			{Dst: prefix("0.0.0.0/0"), Kind: "unicast", Via: addr("172.30.0.1"), Dev: "eth0", Protocol: 3},
		},
	}}
	f.Rules.Services.Program, f.Rules.Policy.Program = vip.New(), permit.New()
	return f, d
}

func TestLayers(t *testing.T) {
	f, d := node()
	for _, l := range Layers(f, d) {
		if len(l.Missing)+len(l.Surplus) > 0 || l.Unknown != "" {
			t.Errorf("%s differs: %q, %q, %s", l.Name, l.Missing, l.Surplus, l.Unknown)
		}
	}
	pod := netip.MustParseAddr("10.244.1.5")
	front := vip.Front{Addr: netip.MustParseAddr("10.96.0.9"), Proto: 6, Port: 80}
	d.Policy.Senders[pod] = struct{}{}
	f.Rules.Services.Fenced[front] = struct{}{}
	f.Network.FDB = nil
	f.Network.Routes = slices.DeleteFunc(f.Network.Routes, func(r facts.Route) bool { return r.Dst.String() == "fd00:2::/64" })
	list := Layers(f, d)
	if Same(list) {
		t.Error("nothing differs")
	}
	var b strings.Builder
	if err := Text(&b, list, Diff); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"# overlay: 10 lines, 2 missing, 0 too many",
		"+ fdb " + cluster.MACOf("b").String() + " dst 172.30.0.12 dev poplin-vx self permanent",
		"+ route fd00:2::/64 via fd00:2:: dev poplin-vx onlink proto 157",
		"# services: 0 lines, 0 missing, 1 too many", "- fenced 10.96.0.9 . tcp . 80",
		"# policy: 1 lines, 1 missing, 0 too many", "+ senders 10.244.1.5",
	}
	if got := lines(b.String()); !slices.Equal(got, want) {
		t.Errorf("got %q\nwant %q", got, want)
	}
	// What is not known is not compared.
	f.Network, f.Missing, d.Lacks = nil, map[string]string{"network": "not permitted"}, map[string]string{"services": "the API server is away"}
	list = Layers(f, d)
	if list[0].Unknown != "not permitted" || list[1].Unknown != "the API server is away" || len(list[0].Missing)+len(list[1].Surplus) > 0 {
		t.Errorf("%+v", list[:2])
	}
	b.Reset()
	if err := Text(&b, list, Actual); err != nil || !strings.Contains(b.String(), "# services\nfenced 10.96.0.9") {
		t.Errorf("%v\n%s", err, b.String())
	}
}

// Two programs that mean the same, under other numbers, are the same text.
func TestVerdictsAreWithoutNumbers(t *testing.T) {
	program := func(near, far permit.Class, web permit.Ports) permit.Program {
		p := permit.New()
		pod, a, b := netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("10.244.2.6"), netip.MustParseAddr("10.244.2.7")
		p.Receivers[pod], p.Loops[pod] = struct{}{}, struct{}{}
		p.Peers[a], p.Peers[b] = near, near
		p.Ranges[permit.Range{First: netip.MustParseAddr("192.0.2.0"), Last: netip.MustParseAddr("192.0.2.255")}] = far
		p.Ports[permit.Span{Ports: web, Proto: 6, First: 80, Last: 81}] = struct{}{}
		p.Ingress[permit.Pair{Pod: pod, Class: near}] = web
		p.Ingress[permit.Pair{Pod: pod, Class: far}] = permit.Everything
		p.Ingress[permit.Pair{Pod: pod}] = permit.Nothing
		return p
	}
	one, other := verdicts(program(3, 4, 16)), verdicts(program(9, 7, 21))
	want := []string{
		"receivers 10.244.1.5", "loops 10.244.1.5",
		"ingress 10.244.1.5 . 10.244.2.6 : tcp 80-81", "ingress 10.244.1.5 . 192.0.2.0 : everything", "ingress 10.244.1.5 . others : nothing",
		"peers 10.244.2.6 : like 10.244.2.6", "peers 10.244.2.7 : like 10.244.2.6", "ranges 192.0.2.0-192.0.2.255 : like 192.0.2.0",
	}
	if !slices.Equal(one, want) || !slices.Equal(other, want) {
		t.Errorf("%q\n%q\nwant %q", one, other, want)
	}
}
