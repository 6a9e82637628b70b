package path

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/program"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/pkg/program/vip"
	webprogram "poplin.dev/poplin/pkg/program/web"
	"poplin.dev/poplin/pkg/trace"
	"poplin.dev/poplin/pkg/trace/hops/network"
	"poplin.dev/poplin/pkg/trace/way"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func at(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func read[T any](t *testing.T, text string) (o T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return o
}

func podOf(t *testing.T, name, node, ip, ports string) object.Pod {
	t.Helper()
	return read[object.Pod](t, fmt.Sprintf(`{"metadata":{"namespace":"blue","name":%q,"uid":%[1]q,"labels":{"app":%[1]q}},"spec":{"nodeName":%q,"containers":[{"ports":[%s]}]},
		"status":{"phase":"Running","podIPs":[{"ip":%q}],"conditions":[{"type":"Ready","status":"True"}]}}`, name, node, ports, ip))
}

const (
	client, web, front = "10.244.0.5", "10.244.1.7", "10.96.0.9"

	vtep1 = "192.0.2.1"
)

// two is a cluster of two nodes: a client on n1, a Service whose endpoint is
// on n2, and nothing wrong.
func two(t *testing.T) *way.Input {
	t.Helper()
	in := &way.Input{
		Facts: map[string]facts.Node{}, Absent: map[string]string{}, Desired: map[string]way.Desired{}, Now: time.Unix(1, 0),
	}
	networks := map[string]cluster.Node{}
	for i, name := range []string{"n1", "n2"} {
		in.Objects.Nodes = append(in.Objects.Nodes, read[object.Node](t, fmt.Sprintf(`{"metadata":{"name":%q},"spec":{"podCIDRs":["10.244.%d.0/24"]},
			"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.%d"}],"conditions":[{"type":"Ready","status":"True"}]}}`, name, i, i+1)))
		n := cluster.Node{
			Name: name, PodCIDRs: []netip.Prefix{prefix(fmt.Sprintf("10.244.%d.0/24", i))}, MTU: 1450,
			VTEP: cluster.VTEP{Addr: addr(fmt.Sprintf("192.0.2.%d", i+1)), MAC: cluster.MACOf(name)},
		}
		networks[name] = n
		in.Objects.Networks = append(in.Objects.Networks, n)
	}
	in.Objects.Pods = []object.Pod{podOf(t, "client", "n1", client, ""), podOf(t, "web", "n2", web, `{"name":"http","containerPort":8080}`)}
	s := read[object.Service](t, `{"metadata":{"namespace":"blue","name":"web"},"spec":{"type":"ClusterIP","clusterIPs":["10.96.0.9"],"selector":{"app":"web"},"ports":[{"port":80,"targetPort":"http"}]}}`)
	in.Objects.Slices = []object.Slice{read[object.Slice](t, `{"metadata":{"namespace":"blue","name":"web-1","labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv4",
		"ports":[{"port":8080,"protocol":"TCP"}],"endpoints":[{"addresses":["10.244.1.7"],"nodeName":"n2","conditions":{"ready":true}}]}`)}
	in.Objects.DNS = &object.Service{}
	in.Objects.DNS.Spec.Ports = []object.ServicePort{{Port: 53, Protocol: "UDP"}}
	in.Objects.DNSSlices = []object.Slice{{Endpoints: make([]object.Endpoint, 1)}}
	in.From = way.End{Pod: &in.Objects.Pods[0], Node: "n1", Addrs: []netip.Addr{addr(client)}}
	in.To = way.Target{Name: "service/web", Service: &s, Addrs: []netip.Addr{addr(front)}, Port: 80, Proto: service.TCP, ByName: true}
	for name, n := range networks {
		other := networks[map[string]string{"n1": "n2", "n2": "n1"}[name]]
		in.Desired[name] = desired(n, other)
		in.Facts[name] = held(name, n, other)
	}
	return in
}

func desired(own, other cluster.Node) way.Desired {
	inner := other.PodCIDRs[0].Addr()
	services := vip.New()
	services.Frontends[vip.Front{Addr: addr(front), Proto: service.TCP, Port: 80}] = vip.To(vip.FirstGroup, 1)
	services.Endpoints[vip.Slot{Group: vip.FirstGroup}] = at(web + ":8080")
	return way.Desired{
		Services: services, Policy: permit.New(),
		Net: program.Net{
			Link:   program.VXLAN{Name: "poplin-vx", VNI: 1, Port: 8472, Local: own.VTEP.Addr, MTU: 1450, MAC: own.VTEP.MAC},
			Addrs:  []netip.Prefix{netip.PrefixFrom(own.PodCIDRs[0].Addr(), 32)},
			Neighs: []program.Neigh{{Addr: inner, MAC: other.VTEP.MAC}}, FDB: []program.FDB{{MAC: other.VTEP.MAC, Dst: other.VTEP.Addr}},
			Routes: []program.Route{{Dst: own.PodCIDRs[0], Metric: 4096}, {Dst: other.PodCIDRs[0], Via: inner, Dev: "poplin-vx"}},
		},
	}
}

// held is what a node with nothing wrong says.
func held(name string, own, other cluster.Node) facts.Node {
	d := desired(own, other)
	inner := other.PodCIDRs[0].Addr()
	mine, theirs, podName := addr(client), addr(web), "blue/client"
	if name == "n2" {
		mine, theirs, podName = theirs, mine, "blue/web"
	}
	gateway := addr("169.254.1.1")
	const host = "02:70:6c:77:00:01"
	return facts.Node{
		Version: facts.Version, Name: name,
		Daemon: &facts.Daemon{Running: true, Ready: true, Settings: facts.Settings{Services: true, Policy: true}, Ranges: []facts.Range{{Range: "all", Taken: 1, Free: "252"}}},
		Network: &facts.Network{
			Links: []facts.Link{
				{Name: "eth0", MTU: 1500, Up: true, Running: true, Addresses: []netip.Prefix{netip.PrefixFrom(own.VTEP.Addr, 24)}},
				{Name: "poplin-vx", MTU: 1450, MAC: own.VTEP.MAC.String(), Up: true, Running: true, VXLAN: &facts.VXLAN{VNI: 1, Port: 8472, Local: own.VTEP.Addr}},
				{Name: "plw1", MTU: 1450, MAC: host, Up: true, Running: true, Group: vip.PodGroup, Settings: map[string]int{"ipv4/forwarding": 1}},
			},
			Decisions: []facts.Decision{
				{Src: mine, In: "plw1", Dst: theirs, Dev: "poplin-vx", Via: inner},
				{Src: theirs, In: "poplin-vx", Dst: mine, Dev: "plw1"},
			},
			Neighs: []facts.Neigh{
				{Addr: inner, Dev: "poplin-vx", MAC: other.VTEP.MAC.String(), State: "permanent"},
				{Addr: mine, Dev: "plw1", MAC: "02:00:00:00:00:05", State: "permanent"},
			},
			FDB:     []facts.Forward{{MAC: other.VTEP.MAC.String(), Dst: other.VTEP.Addr}},
			Sysctls: map[string]string{"ipv4/ip_forward": "1"},
		},
		Rules: &facts.Rules{
			Services: facts.Services{Program: d.Services}, Policy: facts.Policy{Program: permit.New()},
			Overlay: facts.Overlay{Sets: map[string][]netip.Prefix{
				"guard-peers4": {netip.PrefixFrom(other.VTEP.Addr, 32)}, "guard-self4": {netip.PrefixFrom(own.VTEP.Addr, 32)},
			}},
		},
		Flows: &facts.Flows{Count: 10, Max: 1000},
		Pods: []facts.Pod{{
			Name: podName, Container: "c", Interface: "eth0", HostLink: "plw1", Addresses: []netip.Addr{mine},
			Inside: &facts.Network{
				Links:     []facts.Link{{Name: "eth0", MAC: "02:00:00:00:00:05", MTU: 1450, Up: true, Running: true, Addresses: []netip.Prefix{netip.PrefixFrom(mine, 32)}}},
				Routes:    []facts.Route{{Dst: prefix("0.0.0.0/0"), Kind: "unicast", Via: gateway, Dev: "eth0"}},
				Decisions: []facts.Decision{{Src: mine, Dst: theirs, Dev: "eth0", Via: gateway}},
				Neighs:    []facts.Neigh{{Addr: gateway, Dev: "eth0", MAC: host, State: "permanent"}},
				Sockets:   []facts.Socket{{Proto: service.TCP, At: at("[::]:8080")}},
			},
		}},
		Peers: []facts.Peer{{Way: facts.Way{Node: other.Name, Outer: other.VTEP.Addr, Inner: inner, MTU: 1450}, Small: true, Large: true, Below: true}},
	}
}

func TestNothingIsWrong(t *testing.T) {
	r := Walk(two(t))
	if r.Status != way.OK {
		t.Errorf("%+v", r)
	}
	seen := map[way.Class]bool{}
	for _, h := range r.Hops {
		seen[h.Hop] = true
	}
	for _, c := range way.Classes() {
		switch c {
		case way.Entry, way.IngressClass, way.IngressRoute, way.IngressTLS, way.IngressProgram, way.AddressRange:
			continue // not on this way
		}
		if !seen[c] {
			t.Errorf("nobody looked at %s", c)
		}
	}
}

// Each fault is named at its hop, on its node.
func TestFaults(t *testing.T) {
	// on changes what a node holds.
	on := func(node string, change func(*facts.Node)) func(*way.Input) {
		return func(in *way.Input) { f := in.Facts[node]; change(&f); in.Facts[node] = f }
	}
	pass := func(in *way.Input) *facts.Network { return in.Facts["n2"].Pods[0].Inside }
	drop := func(hook string, r facts.Rule) func(*facts.Node) {
		r.Verdict = "drop"
		return func(f *facts.Node) {
			f.Rules.Foreign = []facts.Chain{{Family: "inet", Table: "other", Name: "c", Hook: hook, Rules: []facts.Rule{r}}}
		}
	}
	isolate := func(in *way.Input, sender bool, node string) {
		for _, p := range []*permit.Program{&in.Facts[node].Rules.Policy.Program, ptr(in.Desired[node].Policy)} {
			if sender {
				p.Senders[addr(client)] = struct{}{}
			} else {
				p.Receivers[addr(web)] = struct{}{}
			}
		}
	}
	for name, row := range map[string]struct {
		harm func(*way.Input)
		hop  way.Class
		node string
		says string
	}{
		"no port for names":     {func(in *way.Input) { in.Objects.DNS.Spec.Ports[0].Port = 5353 }, way.DNS, "", "no UDP port 53"},
		"no name server":        {func(in *way.Input) { in.Objects.DNSSlices = nil }, way.DNS, "", "no name server"},
		"may not ask for names": {func(in *way.Input) { keepFromNames(t, in) }, way.DNS, "", "may not ask"},
		"no such target":        {func(in *way.Input) { in.To = way.Target{Missing: "there is no pod x"} }, way.Entry, "", "no pod x"},
		"cluster address":       {func(in *way.Input) { in.From = way.End{} }, way.Entry, "", "no address for clients outside"},
		"no balancer's address, of one family": {func(in *way.Input) {
			in.From, in.To.Service.Spec.Type = way.End{}, "LoadBalancer"
			in.To.Service.Spec.ClusterIPs = append(in.To.Service.Spec.ClusterIPs, "fd00:10:96::1")
		}, way.Entry, "", "no load balancer has given"},
		"wrong port": {func(in *way.Input) { in.To.Port = 81 }, way.Service, "", "no port 81/tcp, only 80/tcp"},
		"address of no Service": {func(in *way.Input) {
			in.To.Service, in.To.ByName, in.To.Addrs = nil, false, []netip.Addr{addr("10.96.0.99")}
			in.Desired["n1"].Services.Ranges[prefix("10.96.0.0/16")] = struct{}{}
		}, way.Service, "", "no Service has 10.96.0.99"},
		"selector":              {func(in *way.Input) { in.To.Service.Spec.Selector["app"] = "wbe" }, way.Service, "", "app=wbe"},
		"name of target port":   {func(in *way.Input) { in.To.Service.Spec.Ports[0].Target = "htpp" }, way.Service, "", "htpp"},
		"number of target port": {func(in *way.Input) { in.To.Service.Spec.Ports[0].Target = "8081" }, way.Service, "", "8081"},
		"not ready": {func(in *way.Input) {
			no := false
			in.Objects.Slices[0].Endpoints[0].Conditions.Ready = &no
			in.Objects.Pods[1].Status.Conditions = []object.Condition{{Type: "Ready", Status: "False", Reason: "ContainersNotReady"}}
		}, way.Endpoints, "", "ContainersNotReady"},
		"endpoint of nobody": {func(in *way.Input) { in.Objects.Slices[0].Endpoints[0].Addresses[0] = "10.244.1.250" }, way.Endpoints, "", "no pod has 10.244.1.250"},
		"traffic policy":     {func(in *way.Input) { in.To.Service.Spec.Internal = "Local" }, way.Endpoints, "", "none of its 1 ready endpoints is on node n1"},
		"range is full": {func(in *way.Input) {
			in.Objects.Pods[1].Status.PodIPs = nil
			in.Facts["n2"].Daemon.Ranges[0].Free = "0"
		}, way.AddressRange, "n2", "full"},
		"daemon not ready":      {func(in *way.Input) { in.Objects.Pods[1].Status.PodIPs = nil; in.Facts["n2"].Daemon.Ready = false }, way.Daemon, "n2", "no address"},
		"node is gone":          {func(in *way.Input) { delete(in.Facts, "n2"); in.Objects.Nodes[1].Status.Conditions = nil }, way.Node, "n2", "not ready"},
		"nobody knows the node": {func(in *way.Input) { in.Objects.Networks = in.Objects.Networks[:1] }, way.Node, "n2", "no NodeNetwork"},
		"old endpoint": {func(in *way.Input) {
			in.Facts["n1"].Rules.Services.Endpoints[vip.Slot{Group: vip.FirstGroup}] = at("10.244.1.8:8080")
		}, way.ServiceProgram, "n1", "should forward to 10.244.1.7:8080"},
		"table is gone": {on("n1", func(f *facts.Node) { f.Rules.Services.Wrong = []string{"table inet poplin-services does not exist"} }), way.ServiceProgram, "n1", "does not exist"},
		"dead daemon": {func(in *way.Input) {
			clear(in.Facts["n1"].Rules.Services.Frontends)
			in.Facts["n1"].Daemon.Running = false
		}, way.Daemon, "n1", "should forward"},
		"conntrack full": {on("n1", func(f *facts.Node) { f.Flows.Count = 1000 }), way.Conntrack, "n1", "full"},
		"stale flow":     {func(in *way.Input) { staleFlow(in) }, way.Conntrack, "n1", "no endpoint"},
		"egress":         {func(in *way.Input) { isolate(in, true, "n1") }, way.PolicyEgress, "n1", "a policy denies it"},
		"ingress":        {func(in *way.Input) { isolate(in, false, "n2") }, way.PolicyIngress, "n2", "a policy denies it"},
		"forwarding":     {on("n2", func(f *facts.Node) { f.Network.Sysctls["ipv4/ip_forward"] = "0" }), way.Sysctl, "n2", "ip_forward"},
		"rp_filter":      {on("n2", func(f *facts.Node) { f.Network.Decisions[1].Error = "invalid cross-device link" }), way.Sysctl, "n2", "rp_filter"},
		"no route":       {on("n1", func(f *facts.Node) { f.Network.Decisions[0].Error = "network is unreachable" }), way.Route, "n1", "unreachable"},
		"other route":    {on("n1", func(f *facts.Node) { f.Network.Decisions[0].Dev = "eth0" }), way.Route, "n1", "eth0"},
		"pod's route":    {on("n2", func(f *facts.Node) { f.Network.Decisions[1].Error = "unreachable" }), way.Route, "n2", "no route to pod blue/web"},
		"no neighbour":   {on("n1", func(f *facts.Node) { f.Network.Neighs = f.Network.Neighs[1:] }), way.Overlay, "n1", "no neighbour entry"},
		"wrong MAC":      {on("n1", func(f *facts.Node) { f.Network.Neighs[0].MAC = "02:00:00:00:00:99" }), way.Overlay, "n1", "02:00:00:00:00:99"},
		"no FDB":         {on("n1", func(f *facts.Node) { f.Network.FDB = nil }), way.Overlay, "n1", "no forwarding entry"},
		"wrong FDB":      {on("n1", func(f *facts.Node) { f.Network.FDB[0].Dst = addr("192.0.2.9") }), way.Overlay, "n1", "192.0.2.9"},
		"refused": {func(in *way.Input) {
			d := in.Desired["n1"]
			d.Refused = map[string]string{"n2": "overlaps"}
			in.Desired["n1"] = d
		}, way.Overlay, "n1", "overlaps"},
		"device down":      {on("n2", func(f *facts.Node) { f.Network.Links[1].Up = false }), way.Decapsulation, "n2", "down"},
		"device gone":      {on("n2", func(f *facts.Node) { f.Network.Links = f.Network.Links[:1] }), way.Decapsulation, "n2", "no device"},
		"other VNI":        {on("n2", func(f *facts.Node) { f.Network.Links[1].VXLAN.VNI = 2 }), way.Decapsulation, "n2", "VNI 2"},
		"not a peer":       {on("n2", func(f *facts.Node) { f.Rules.Overlay.Sets["guard-peers4"] = nil }), way.Guard, "n2", "do not know node n1"},
		"sends as another": {func(in *way.Input) { in.Facts["n1"].Pods[0].Inside.Routes[0].Src = addr("10.244.0.9") }, way.Guard, "n1", "10.244.0.9"},
		"no node port": {func(in *way.Input) {
			in.From, in.To = way.End{}, way.Target{Addrs: []netip.Addr{addr(vtep1)}, Port: 30099, Proto: service.TCP}
		}, way.Entry, "", "no Service has node port 30099"},
		"drop inside of the pod": {func(in *way.Input) {
			in.Facts["n2"].Pods[0].Chains = []facts.Chain{{Family: "ip", Table: "filter", Name: "INPUT", Hook: "input", Drops: true}}
		}, way.Firewall, "n2", "inside of pod blue/web"},
		"somebody translates first": {on("n1", func(f *facts.Node) {
			f.Rules.Foreign = []facts.Chain{{Family: "ip", Table: "nat", Name: "PREROUTING", Hook: "prerouting", Priority: -101, Rules: []facts.Rule{{Verdict: "dnat"}}}}
		}), way.ServiceProgram, "n1", "translates it first"},
		"not tracked": {on("n1", func(f *facts.Node) {
			f.Rules.Foreign = []facts.Chain{{Family: "ip", Table: "raw", Name: "PREROUTING", Hook: "prerouting", Priority: -300, Rules: []facts.Rule{{Verdict: "notrack"}}}}
		}), way.Conntrack, "n1", "connection tracking"},
		"tracked apart": {on("n1", func(f *facts.Node) {
			zone := uint16(7)
			f.Rules.Foreign = []facts.Chain{{Family: "ip", Table: "zones", Name: "c", Hook: "prerouting", Priority: -310,
				Rules: []facts.Rule{{Dst: &facts.AddrMatch{Prefix: prefix("10.96.0.0/16")}, Zone: &zone}}}}
		}), way.Conntrack, "n1", "zone 7 and answers in zone 0"},
		"name of nothing":   {func(in *way.Input) { in.To.Unresolved = "stands for nothing" }, way.DNS, "", "stands for nothing"},
		"drop forwarded":    {on("n2", drop("forward", facts.Rule{Dst: &facts.AddrMatch{Prefix: prefix(web + "/32")}})), way.Firewall, "n2", "chain inet other c"},
		"drop encapsulated": {on("n1", drop("output", facts.Rule{Dport: &facts.NumMatch{Low: 8472, High: 8472}})), way.Firewall, "n1", "8472"},
		"drop at the device": {on("n2", func(f *facts.Node) {
			f.Rules.Foreign = []facts.Chain{{Family: "netdev", Table: "site", Name: "in", Hook: facts.Ingress, Devices: []string{"eth0"},
				Rules: []facts.Rule{{Sets: []facts.SetMatch{{Field: "dport", Numbers: []facts.NumMatch{{Low: 8472, High: 8472}}}}, Verdict: "drop"}}}}
		}), way.Firewall, "n2", "chain netdev site in"},
		"cable":              {on("n1", func(f *facts.Node) { f.Network.Links[0].Running = false; f.Peers[0] = facts.Peer{Way: f.Peers[0].Way} }), way.Underlay, "n1", "no carrier"},
		"no answer":          {on("n1", func(f *facts.Node) { f.Peers[0] = facts.Peer{Way: f.Peers[0].Way} }), way.Underlay, "n1", "does not answer"},
		"port 8472":          {on("n1", func(f *facts.Node) { f.Peers[0] = facts.Peer{Way: f.Peers[0].Way, Below: true} }), way.Underlay, "n1", "8472"},
		"MTU hole":           {on("n1", func(f *facts.Node) { f.Peers[0].Large, f.Peers[0].Size = false, 1280 }), way.MTU, "n1", "1280"},
		"small underlay":     {on("n2", func(f *facts.Node) { f.Network.Links[0].MTU = 1400 }), way.MTU, "n2", "1400"},
		"link down":          {on("n2", func(f *facts.Node) { f.Network.Links[2].Up = false }), way.PodLink, "n2", "down"},
		"link of the client": {on("n1", func(f *facts.Node) { f.Network.Links[2].Up = false }), way.PodLink, "n1", "down"},
		"link down, no way back": {func(in *way.Input) {
			on("n2", func(f *facts.Node) { f.Network.Links[2].Up = false; f.Network.FDB = nil })(in)
		}, way.PodLink, "n2", "down"},
		"node does not know it": {on("n2", func(f *facts.Node) { f.Network.Neighs = f.Network.Neighs[:1] }), way.PodLink, "n2", "no neighbour entry"},
		"address":               {func(in *way.Input) { pass(in).Links[0].Addresses = nil }, way.PodAddress, "n2", "does not hold"},
		"default route":         {func(in *way.Input) { pass(in).Routes = nil }, way.PodRoute, "n2", "no default route"},
		"gateway":               {func(in *way.Input) { pass(in).Neighs = nil }, way.PodRoute, "n2", "gateway"},
		"on the pod's link": {func(in *way.Input) {
			pass(in).Decisions = []facts.Decision{{Src: addr(web), Dst: addr(client), Dev: "eth0"}}
		}, way.PodRoute, "n2", "takes 10.244.0.5 for a neighbour"},
		"nobody listens": {func(in *way.Input) { pass(in).Sockets = nil }, way.Socket, "n2", "nobody listens"},
		"nobody accepts": {func(in *way.Input) { pass(in).Sockets[0].Waiting = 3 }, way.Socket, "n2", "3 connections wait"},
		"only 127.0.0.1": {func(in *way.Input) { pass(in).Sockets[0].At = at("127.0.0.1:8080") }, way.Socket, "n2", "127.0.0.1:8080 only"},
		"only IPv4":      {func(in *way.Input) { pass(in).Sockets[0].At = at("10.244.1.9:8080") }, way.Socket, "n2", "only"},
		"way back":       {on("n2", func(f *facts.Node) { f.Network.FDB = nil }), way.Return, "n2", "no forwarding entry"},
		"ingress and way back": {func(in *way.Input) {
			isolate(in, false, "n2")
			on("n2", func(f *facts.Node) { f.Network.FDB = nil })(in)
		}, way.PolicyIngress, "n2", "a policy denies it"},
		"guard on the way back": {on("n1", func(f *facts.Node) { f.Rules.Overlay.Sets["guard-peers4"] = nil }), way.Return, "n2", "do not know node n2"},
	} {
		in := two(t)
		row.harm(in)
		r := Walk(in)
		if r.Status != way.Broken || r.Hop != row.hop || r.Node != row.node || !strings.Contains(r.Cause, row.says) || r.Cure == "" {
			t.Errorf("%s: %s %s on %q: %s; want %s on %q: %s (%s)", name, r.Status, r.Hop, r.Node, r.Cause, row.hop, row.node, row.says, r.Cure)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func keepFromNames(t *testing.T, in *way.Input) {
	t.Helper()
	slice := read[object.Slice](t, `{"ports":[{"port":53,"protocol":"UDP"}],"endpoints":[{"addresses":["10.244.1.53"]}]}`)
	in.Objects.DNSSlices = []object.Slice{slice}
	d := in.Desired["n1"]
	d.Explain = func(bool, netip.Addr, netip.AddrPort, service.Protocol) string { return "policy blue/client" }
	in.Desired["n1"] = d
}

func staleFlow(in *way.Input) {
	in.To.Proto = service.UDP
	in.To.Service.Spec.Ports[0].Protocol = "UDP"
	in.Objects.Slices[0].Ports[0].Protocol = "UDP"
	in.Objects.Pods[1].Spec.Containers[0].Ports[0].Protocol = "UDP"
	for _, p := range []vip.Program{in.Facts["n1"].Rules.Services.Program, in.Desired["n1"].Services} {
		p.Frontends[vip.Front{Addr: addr(front), Proto: service.UDP, Port: 80}] = vip.To(vip.FirstGroup, 1)
	}
	in.Facts["n1"].Flows.Known = []facts.Known{{Proto: service.UDP, Src: at(client + ":1234"), Dst: at(front + ":80"), To: at("10.244.1.99:8080"), Left: 20}}
}

// What is not known is never OK.
func TestIgnoranceIsUnknown(t *testing.T) {
	for name, hide := range map[string]func(*way.Input){
		"a node does not answer": func(in *way.Input) { delete(in.Facts, "n2"); in.Absent["n2"] = "forbidden" },
		"the inside of a pod": func(in *way.Input) {
			in.Facts["n2"].Pods[0].Inside = nil
			in.Facts["n2"].Pods[0].Hidden = "needs node access"
		},
		"rules": func(in *way.Input) {
			f := in.Facts["n1"]
			f.Rules = nil
			f.Missing = map[string]string{"rules": "x"}
			in.Facts["n1"] = f
		},
		"other nodes' answers": func(in *way.Input) { f := in.Facts["n1"]; f.Peers = nil; in.Facts["n1"] = f },
	} {
		in := two(t)
		hide(in)
		if r := Walk(in); r.Status != way.Unknown || r.Cause == "" {
			t.Errorf("%s: %s %s: %s", name, r.Status, r.Hop, r.Cause)
		}
	}
}

// A policy that lets a client ask the cache of names on its node, and nobody else,
// lets it find names.
func TestNamesFromTheNode(t *testing.T) {
	in := two(t)
	keepFromNames(t, in)
	d := in.Desired["n1"]
	d.Explain = func(_ bool, _ netip.Addr, to netip.AddrPort, _ service.Protocol) string {
		if to == at("169.254.20.10:53") || to.Port() != 53 {
			return ""
		}
		return "policy blue/client"
	}
	in.Desired["n1"] = d
	if r := Walk(in); r.Hop != way.DNS || r.Status != way.Broken {
		t.Errorf("without a cache: %s %s: %s", r.Status, r.Hop, r.Cause)
	}
	network := in.Facts["n1"].Network
	network.Sockets = append(network.Sockets, facts.Socket{Proto: service.UDP, At: at("169.254.20.10:53")})
	if r := Walk(in); r.Status != way.OK {
		t.Errorf("with one: %s %s: %s", r.Status, r.Hop, r.Cause)
	}
}

// No policy keeps a pod from its own node, whatever device has the address: a
// cache of names there has one of its own.
func TestOwnNodeIsOpen(t *testing.T) {
	for _, there := range []bool{true, false} {
		in, own := two(t), at("169.254.20.10:53")
		in.Facts["n1"].Rules.Policy.Program.Senders[addr(client)] = struct{}{}
		in.Desired["n1"].Policy.Senders[addr(client)] = struct{}{}
		if there {
			n := in.Facts["n1"].Network
			n.Links = append(n.Links, facts.Link{Name: "nodelocaldns", Addresses: []netip.Prefix{prefix("169.254.20.10/32")}})
		}
		c := &way.Case{Input: in, Src: in.From, Origin: trace.FromPod, Enters: "n1", From: addr(client), Front: own, Dst: own, Proto: service.UDP}
		if h := network.PolicyEgress(c)[0]; (h.Status == way.OK) != there {
			t.Errorf("on the node %v: %s: %s", there, h.Status, h.Cause)
		}
	}
}

// A replica of the Ingress controller that serves what the objects do not say has
// missed a change; what one does not tell is unknown.
func TestReplicas(t *testing.T) {
	for _, row := range []struct {
		told   way.Told
		status way.Status
		says   string
	}{
		{way.Told{}, way.OK, ""},
		{way.Told{Differs: "it answers 404"}, way.Broken, "pod blue/web has missed a change: it answers 404"},
		{way.Told{Unknown: "forbidden"}, way.Unknown, "not known: forbidden"},
	} {
		in := two(t)
		in.Web = &way.Web{Host: "a.example.com", Path: "/", Program: &webprogram.Program{}, Replicas: in.Objects.Pods[1:], Told: map[string]way.Told{"blue/web": row.told}}
		for _, h := range Walk(in).Hops {
			if h.Hop == way.IngressProgram && (h.Status != row.status || !strings.Contains(h.Cause, row.says)) {
				t.Errorf("%+v: %s: %s", row.told, h.Status, h.Cause)
			}
		}
	}
}

// Without the API server a node tells what it knows: what it does not keep is
// unknown, and what its kernel lacks is broken.
func TestWithoutTheAPIServer(t *testing.T) {
	remembered := func(t *testing.T) *way.Input {
		in := two(t)
		in.Memory = &way.Memory{Node: "n1", Why: "connection refused"}
		for i := range in.Objects.Nodes {
			in.Objects.Nodes[i].Status.Conditions = nil
		}
		in.To.Service.Spec.Selector, in.To.Service.Spec.Ports[0].Target = nil, ""
		return in
	}
	in := remembered(t)
	in.To = way.Target{Name: "pod/web", Pod: &in.Objects.Pods[1], Addrs: []netip.Addr{addr(web)}, Port: 8080, Proto: service.TCP}
	if r := Walk(in); r.Status != way.OK || r.Memory != in.Memory {
		t.Errorf("to a pod: %s %s: %s", r.Status, r.Hop, r.Cause)
	}
	in = remembered(t)
	if r := Walk(in); r.Status != way.Unknown || r.Hop != way.Service || !strings.Contains(r.Cause, "API server is away") {
		t.Errorf("to a Service: %s %s: %s", r.Status, r.Hop, r.Cause)
	}
	in = remembered(t)
	in.Facts["n1"].Network.FDB[0].MAC = "02:00:00:00:00:99"
	if r := Walk(in); r.Status != way.Broken || r.Hop != way.Overlay {
		t.Errorf("with a fault: %s %s: %s", r.Status, r.Hop, r.Cause)
	}
	in = remembered(t)
	delete(in.Facts, "n2")
	in.Objects.Pods = in.Objects.Pods[:1]
	for _, h := range Walk(in).Hops {
		if h.Status != way.Unknown && (h.Node == "n2" || h.Hop == way.Endpoints) || h.Status == way.Broken {
			t.Errorf("nobody asks n2: %s %s %s: %s", h.Status, h.Hop, h.Node, h.Cause)
		}
	}
	in = remembered(t)
	in.To.Forgotten = true
	if r := Walk(in); r.Status != way.Unknown || r.Hop != way.IngressClass {
		t.Errorf("to a URL: %s %s: %s", r.Status, r.Hop, r.Cause)
	}
}

// NodeLocal DNSCache listens at the Service's own address, on the node, and has
// the packets to it spared: that is no fault.
func TestTheNodeAnswersInTheServicesPlace(t *testing.T) {
	in := two(t)
	f := in.Facts["n1"]
	f.Rules.Foreign = []facts.Chain{{Family: "ip", Table: "raw", Name: "PREROUTING", Hook: "prerouting", Priority: -300, Rules: []facts.Rule{{Verdict: "notrack"}}}}
	f.Network.Links = append(f.Network.Links, facts.Link{Name: "nodelocaldns", Addresses: []netip.Prefix{prefix("169.254.20.10/32"), prefix(front + "/32")}})
	f.Network.Sockets = append(f.Network.Sockets, facts.Socket{Proto: service.TCP, At: at(front + ":80")})
	if r := Walk(in); r.Status != way.OK {
		t.Errorf("%s %s: %s", r.Status, r.Hop, r.Cause)
	}
}
