package flow

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/vip"
	"poplin.dev/poplin/pkg/trace"
)

// flow is one connection and its fate: who may answer and what it sees, all
// of them; "refused"; or "silence".
type flow struct {
	from, to string
	port     uint16
	want     string
}

// object is a Service and its endpoints, in both families.
type object struct {
	service.Service
	slices []service.Slice
}

var key = service.Key{Namespace: "shop", Name: "web"}

// serviceOf has endpoints at places; "pod1!" is terminating but serving,
// "pod1?" not ready.
func serviceOf(change func(*object), endpoints ...string) object {
	o := object{Service: service.Service{
		Key: key, Type: service.LoadBalancer,
		Ports: []service.Port{{Name: "http", Protocol: service.TCP, Port: 80, NodePort: 30080}},
	}}
	for _, ipv6 := range []bool{false, true} {
		o.ClusterIPs = append(o.ClusterIPs, at("vip", ipv6))
		s := service.Slice{Key: service.Key{Namespace: key.Namespace, Name: fmt.Sprint("web-", ipv6)}, Service: key.Name, Family: 4,
			Ports: []service.SlicePort{{Name: "http", Protocol: service.TCP, Port: 8080}}}
		if ipv6 {
			s.Family = 6
		}
		for _, e := range endpoints {
			place := strings.TrimRight(e, "!?")
			node := "worker-1"
			if place == "remote" {
				node = "worker-2"
			}
			s.Endpoints = append(s.Endpoints, service.Endpoint{
				Addr: at(place, ipv6), Node: node, Ready: e == place, Serving: !strings.HasSuffix(e, "?"), Terminating: strings.HasSuffix(e, "!"),
			})
		}
		o.slices = append(o.slices, s)
	}
	if change != nil {
		change(&o)
	}
	return o
}

func eachEndpoint(o *object, f func(e *service.Endpoint)) {
	for i := range o.slices {
		for j := range o.slices[i].Endpoints {
			f(&o.slices[i].Endpoints[j])
		}
	}
}

func both(place string) []netip.Addr { return []netip.Addr{at(place, false), at(place, true)} }

func balanced(o *object) {
	for _, a := range both("external") {
		o.Ingress = append(o.Ingress, service.Ingress{Addr: a})
	}
}

func overUDP(o *object) {
	o.Ports[0].Protocol = service.UDP
	for i := range o.slices {
		o.slices[i].Ports[0].Protocol = service.UDP
	}
}

// anyone is what all three endpoints say when they see the node.
const anyone = "pod1:8080 sees node, pod2:8080 sees node, remote:8080 sees node"

var table = []struct {
	name  string
	proto service.Protocol
	object
	flows []flow
}{
	{"cluster address", service.TCP, serviceOf(nil, "pod1", "pod2", "remote"), []flow{
		{"pod1", "vip", 80, "pod1:8080 sees node, pod2:8080 sees pod1, remote:8080 sees pod1"}, // hairpin masqueraded, else the pod's own source
		{"client", "vip", 80, anyone}, // from outside the cluster
		{"node", "vip", 80, anyone},
	}},
	{"cluster address, UDP", service.UDP, serviceOf(overUDP, "pod1", "pod2"), []flow{
		{"pod2", "vip", 81, "refused"},
		{"client", "vip", 81, "refused"},
		{"pod1", "vip", 80, "pod1:8080 sees node, pod2:8080 sees pod1"},
		{"client", "vip", 80, "pod1:8080 sees node, pod2:8080 sees node"},
		{"client", "node", 30080, "pod1:8080 sees node, pod2:8080 sees node"},
	}},
	{"a port that no Service has, an address that no Service has, and others'", service.TCP, serviceOf(nil, "pod1"), []flow{
		{"pod2", "vip", 81, "refused"},
		{"client", "vip", 81, "refused"},
		{"node", "vip", 81, "refused"},
		{"pod2", "unassigned", 80, "silence"},
		{"client", "unassigned", 80, "silence"},
		{"node", "unassigned", 80, "silence"},
		{"pod2", "pod1", 8080, "pod1:8080 sees pod2"},
		{"pod2", "elsewhere", 80, "elsewhere:80 sees pod2"},
		{"node", "pod1", 8080, "pod1:8080 sees node"},
	}},
	{"node port", service.TCP, serviceOf(nil, "pod1", "pod2", "remote"), []flow{
		{"client", "node", 30080, anyone},
		{"pod1", "node", 30080, anyone},
		{"node", "node", 30080, anyone},
		{"node", "localhost", 30080, "refused"}, // never on localhost
		{"client", "node", 30081, "refused"},
	}},
	{"external address", service.TCP, serviceOf(func(o *object) {
		o.ExternalIPs = append(both("external"), both("elsewhere")...) // the latter is outside the ranges
	}, "remote"), []flow{
		{"client", "external", 80, "remote:8080 sees node"},
		{"pod1", "external", 80, "remote:8080 sees node"},
		{"pod1", "elsewhere", 80, "elsewhere:80 sees pod1"},
	}},
	{"load balancer", service.TCP, serviceOf(func(o *object) {
		balanced(o)
		for _, a := range both("elsewhere") {
			o.Ingress = append(o.Ingress, service.Ingress{Addr: a, Proxy: true}) // the balancer ends connections itself
		}
		o.Ports[0].NodePort = 0
	}, "pod1", "remote"), []flow{
		{"client", "external", 80, "pod1:8080 sees node, remote:8080 sees node"},
		{"pod2", "external", 80, "pod1:8080 sees node, remote:8080 sees node"},
		{"pod2", "elsewhere", 80, "elsewhere:80 sees pod2"},
		{"client", "node", 30080, "refused"},
	}},
	{"load balancer for some clients", service.TCP, serviceOf(func(o *object) {
		balanced(o)
		o.SourceRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/25"), netip.MustParsePrefix("2001:db8:c::/121"), netip.MustParsePrefix("172.30.0.0/16"), netip.MustParsePrefix("fd00:30::/64")}
	}, "pod1"), []flow{
		{"client", "external", 80, "pod1:8080 sees node"},
		{"stranger", "external", 80, "silence"},
		{"pod2", "external", 80, "silence"},
		{"node", "external", 80, "pod1:8080 sees node"},
		{"stranger", "node", 30080, "pod1:8080 sees node"}, // the ranges are the balancer's
		{"stranger", "vip", 80, "pod1:8080 sees node"},
	}},
	{"load balancer for some clients, and not for the node", service.TCP, serviceOf(func(o *object) {
		balanced(o)
		o.SourceRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("2001:db8:c::7/128")}
	}, "pod1"), []flow{
		{"client", "external", 80, "pod1:8080 sees node"},
		{"node", "external", 80, "silence"},
		{"node", "vip", 80, "pod1:8080 sees node"},
	}},
	{"load balancer with ranges that are no fence", service.TCP, serviceOf(func(o *object) {
		balanced(o)
		// All of one family, and nothing of the other.
		o.SourceRanges = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("192.0.2.7/32")}
	}, "pod1"), []flow{
		{"client", "external", 80, "pod1:8080 sees node"},
		{"stranger", "external", 80, "pod1:8080 sees node"},
	}},
	{"external policy Local", service.TCP, serviceOf(func(o *object) { balanced(o); o.ExternalLocal = true }, "pod1", "remote"), []flow{
		{"client", "external", 80, "pod1:8080 sees client"},
		{"client", "node", 30080, "pod1:8080 sees client"},
		{"pod2", "external", 80, "pod1:8080 sees pod2, remote:8080 sees pod2"}, // a local pod: as by the cluster address
		{"pod2", "node", 30080, "pod1:8080 sees pod2, remote:8080 sees pod2"},
		{"node", "external", 80, "pod1:8080 sees node, remote:8080 sees node"},
		{"client", "vip", 80, "pod1:8080 sees node, remote:8080 sees node"},
	}},
	{"external policy Local without a local endpoint", service.TCP, serviceOf(func(o *object) { balanced(o); o.ExternalLocal = true }, "remote"), []flow{
		{"client", "external", 80, "silence"},
		{"client", "node", 30080, "silence"},
		{"pod2", "external", 80, "remote:8080 sees pod2"},
		{"node", "node", 30080, "remote:8080 sees node"},
		{"client", "vip", 80, "remote:8080 sees node"},
	}},
	{"internal policy Local", service.TCP, serviceOf(func(o *object) { o.InternalLocal = true }, "pod1", "remote"), []flow{
		{"pod2", "vip", 80, "pod1:8080 sees pod2"},
		{"node", "vip", 80, "pod1:8080 sees node"},
		{"client", "node", 30080, "pod1:8080 sees node, remote:8080 sees node"},
	}},
	{"internal policy Local without a local endpoint", service.TCP, serviceOf(func(o *object) { o.InternalLocal = true }, "remote"), []flow{
		{"pod2", "vip", 80, "silence"},
		{"node", "vip", 80, "silence"},
		{"client", "node", 30080, "remote:8080 sees node"},
	}},
	{"no endpoint anywhere", service.TCP, serviceOf(func(o *object) { balanced(o); o.ExternalLocal = true }, "pod1?"), []flow{
		{"pod2", "vip", 80, "refused"},
		{"node", "vip", 80, "refused"},
		{"client", "vip", 80, "refused"},
		{"client", "external", 80, "refused"},
		{"client", "node", 30080, "refused"},
		{"pod2", "external", 80, "refused"},
	}},
	{"no endpoint anywhere, UDP", service.UDP, serviceOf(overUDP), []flow{
		{"pod2", "vip", 80, "refused"},
		{"node", "vip", 80, "refused"},
		{"client", "node", 30080, "refused"},
	}},
	{"terminating endpoints while others are ready", service.TCP, serviceOf(nil, "pod1!", "remote"), []flow{
		{"pod2", "vip", 80, "remote:8080 sees pod2"},
	}},
	{"terminating endpoints alone", service.TCP, serviceOf(func(o *object) { o.ExternalLocal = true }, "pod1!", "remote!", "pod2?"), []flow{
		{"pod2", "vip", 80, "pod1:8080 sees pod2, remote:8080 sees pod2"},
		{"client", "node", 30080, "pod1:8080 sees client"},
	}},
	{"local terminating endpoint, ready ones elsewhere", service.TCP, serviceOf(func(o *object) { o.ExternalLocal = true }, "pod1!", "remote"), []flow{
		{"client", "node", 30080, "pod1:8080 sees client"},
		{"pod2", "node", 30080, "remote:8080 sees pod2"},
	}},
	{"hints for zones", service.TCP, serviceOf(func(o *object) {
		eachEndpoint(o, func(e *service.Endpoint) {
			e.ForZones = []string{map[bool]string{true: "west", false: "east"}[e.Node == "worker-2"]}
		})
	}, "pod1", "remote"), []flow{{"pod2", "vip", 80, "pod1:8080 sees pod2"}}},
	{"hints for nodes", service.TCP, serviceOf(func(o *object) {
		eachEndpoint(o, func(e *service.Endpoint) {
			e.ForZones = []string{"east"}
			e.ForNodes = []string{map[bool]string{true: "worker-1", false: "worker-2"}[placeOf(e.Addr) == "pod1"]}
		})
	}, "pod1", "pod2", "remote"), []flow{{"pod2", "vip", 80, "pod1:8080 sees pod2"}}},
	{"hints for another zone", service.TCP, serviceOf(func(o *object) {
		eachEndpoint(o, func(e *service.Endpoint) { e.ForZones = []string{"west"} })
	}, "pod1", "remote"), []flow{{"pod2", "vip", 80, "pod1:8080 sees pod2, remote:8080 sees pod2"}}},
	{"hints and policies Local", service.TCP, serviceOf(func(o *object) {
		o.ExternalLocal, o.InternalLocal = true, true
		eachEndpoint(o, func(e *service.Endpoint) {
			e.ForZones = []string{map[bool]string{true: "east", false: "west"}[placeOf(e.Addr) == "pod2"]}
		})
	}, "pod1", "pod2", "remote"), []flow{
		{"pod2", "vip", 80, "pod1:8080 sees pod2, pod2:8080 sees node"},
		{"client", "node", 30080, "pod1:8080 sees client, pod2:8080 sees client"},
		{"pod2", "node", 30080, "pod2:8080 sees node"}, // a local pod: no policy, so the hints count
	}},
	{"half a set of hints", service.TCP, serviceOf(func(o *object) {
		eachEndpoint(o, func(e *service.Endpoint) {
			if e.Node == "worker-1" {
				e.ForZones = []string{"east"}
			}
		})
	}, "pod1", "remote"), []flow{{"pod2", "vip", 80, "pod1:8080 sees pod2, remote:8080 sees pod2"}}},
	{"one port number for two protocols, a port with another number in each slice", service.TCP, serviceOf(func(o *object) {
		o.Ports = append(o.Ports, service.Port{Name: "dns", Protocol: service.UDP, Port: 80, NodePort: 30080})
		for i, s := range slices.Clone(o.slices) {
			s.Name += "-more"
			s.Ports = []service.SlicePort{{Name: "http", Protocol: service.TCP, Port: 9090}}
			s.Endpoints = slices.Clone(s.Endpoints)
			s.Endpoints[0].Addr = at("pod2", i == 1)
			o.slices = append(o.slices, s)
		}
	}, "pod1"), []flow{{"client", "node", 30080, "pod1:8080 sees node, pod2:9090 sees node"}}},
	{"endpoint in the node's own network", service.TCP, serviceOf(func(o *object) { balanced(o); o.ExternalLocal = true }, "node"), []flow{
		{"pod2", "vip", 80, "node:8080 sees pod2"},
		{"client", "vip", 80, "node:8080 sees client"}, // delivered here, where nothing is masqueraded
		{"client", "external", 80, "node:8080 sees client"},
		{"node", "vip", 80, "node:8080 sees node"},
		{"node", "node", 30080, "node:8080 sees node"},
	}},
	{"a pod that is published although it is not ready, and ends", service.TCP, serviceOf(func(o *object) {
		eachEndpoint(o, func(e *service.Endpoint) { e.Ready, e.Serving, e.Terminating = true, false, true })
	}, "pod1", "remote"), []flow{{"pod2", "vip", 80, "pod1:8080 sees pod2, remote:8080 sees pod2"}}},
	{"an address of two slices, of a pod that ends and its successor", service.TCP, serviceOf(func(o *object) {
		for _, s := range slices.Clone(o.slices) {
			s.Name = "a-" + s.Name // comes first
			s.Endpoints = slices.Clone(s.Endpoints)
			s.Endpoints[0].Ready, s.Endpoints[0].Serving, s.Endpoints[0].Terminating = false, true, true
			o.slices = append(o.slices, s)
		}
	}, "pod1", "remote"), []flow{{"pod2", "vip", 80, "pod1:8080 sees pod2, remote:8080 sees pod2"}}},
	{"slices that cannot be right, and one that is", service.TCP, serviceOf(func(o *object) {
		for i, s := range slices.Clone(o.slices) {
			names, port, family := s, s, s
			names.Name, names.Family = "names-"+s.Name, 0
			port.Name, port.Ports = "port-"+s.Name, []service.SlicePort{{Name: "http", Protocol: service.TCP}}
			family.Name, family.Endpoints = "family-"+s.Name, slices.Clone(o.slices[1-i].Endpoints)
			o.slices = append(o.slices, names, port, family)
		}
		o.Ports = append(o.Ports, service.Port{Name: "none", Protocol: service.TCP})
	}, "pod1"), []flow{
		{"pod2", "vip", 80, "pod1:8080 sees pod2"},
		{"client", "node", 30080, "pod1:8080 sees node"},
	}},
	{"a Service of names only", service.TCP, serviceOf(func(o *object) { o.Type = service.ExternalName }, "pod1"), []flow{
		{"pod2", "vip", 80, "silence"},
		{"client", "node", 30080, "refused"},
	}},
	{"a headless Service", service.TCP, serviceOf(func(o *object) { o.ClusterIPs = nil }, "pod1"), []flow{
		{"pod2", "vip", 80, "silence"},
		{"client", "node", 30080, "refused"},
	}},
	{"another proxy's Service", service.TCP, serviceOf(func(o *object) { o.ProxyName = "mesh" }, "pod1"), []flow{
		{"pod2", "vip", 80, "silence"},
		{"client", "node", 30080, "refused"},
	}},
}

// TestTable: the kernel, the trace and the hand that wrote the table agree.
func TestTable(t *testing.T) {
	l := newLab(t)
	for _, row := range table {
		t.Run(row.name, func(t *testing.T) {
			l.table.Set(row.Service, row.slices)
			l.sync(t)
			for _, f := range row.flows {
				if l.patience = 10 * time.Second; f.want == "silence" {
					l.patience = patience // who is to answer may take his time
				}
				for _, ipv6 := range []bool{false, true} {
					if got := l.survey(t, f.from, f.to, row.proto, f.port, ipv6); got != f.want {
						t.Errorf("IPv6 %v: %s to %s:%d: %s, want %s", ipv6, f.from, f.to, f.port, got, f.want)
					}
					if got, steps := traced(l.table.Program(), f, row.proto, ipv6); got != f.want {
						t.Errorf("IPv6 %v: %s to %s:%d: trace says %s, want %s\n%s", ipv6, f.from, f.to, f.port, got, f.want, steps)
					}
				}
			}
		})
	}
}

// traced asks pkg/trace, in the words of the table.
func traced(p vip.Program, f flow, proto service.Protocol, ipv6 bool) (string, string) {
	pkt := trace.Packet{Origin: trace.FromOutside, Src: at(f.from, ipv6), Dst: netip.AddrPortFrom(at(f.to, ipv6), f.port), Proto: proto}
	switch f.from {
	case "pod1", "pod2":
		pkt.Origin = trace.FromPod
	case "node":
		pkt.Origin = trace.FromNode
	}
	v := trace.Service(p, labNode().Addresses, pkt)
	steps := strings.Join(v.Steps, "\n")
	switch v.Action {
	case trace.Refuse:
		return "refused", steps
	case trace.Drop:
		return "silence", steps
	case trace.Pass:
		// Whoever has the address answers, or nobody listens.
		if place := placeOf(pkt.Dst.Addr()); slices.Contains(listened, f.port) && slices.Contains([]string{"pod1", "pod2", "remote", "elsewhere", "node"}, place) {
			return string(answer(place, f.port, pkt.Src)), steps
		}
		return "refused", steps
	}
	var list []string
	for _, e := range v.Endpoints {
		src := pkt.Src
		if e.Masquerade {
			src = at("node", ipv6)
		}
		list = append(list, string(answer(placeOf(e.Addr.Addr()), e.Addr.Port(), src)))
	}
	slices.Sort(list)
	return strings.Join(list, ", "), steps
}
