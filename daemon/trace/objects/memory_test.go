package objects_test

import (
	"errors"
	"net/netip"
	"testing"

	"poplin.dev/poplin/daemon/trace/objects"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/kube/person"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestRemember: a Service is found with its endpoints and its pods, by what the
// daemon keeps of them; of pods that only the runtime knows, the addresses are.
func TestRemember(t *testing.T) {
	ctx := t.Context()
	key := service.Key{Namespace: "shop", Name: "web"}
	f := facts.Node{
		Name: "n1",
		Pods: []facts.Pod{
			{Name: "shop/web-1", Addresses: []netip.Addr{addr("10.0.0.9")}},
			{Name: "shop/late", Interface: "lo"},
			{Name: "shop/late", Addresses: []netip.Addr{addr("10.0.0.8"), addr("fd00::8")}},
		},
		Daemon:  &facts.Daemon{HostPorts: []facts.HostPort{{Proto: service.UDP, Port: 5353, To: netip.MustParseAddrPort("10.0.0.8:53"), Pod: "shop/late"}}},
		Cluster: &facts.Cluster{},
	}
	f.Cluster.Services = []service.Service{
		{
			Key: key, Type: service.LoadBalancer, ClusterIPs: []netip.Addr{addr("10.96.0.1")}, ExternalLocal: true,
			Ports:   []service.Port{{Name: "http", Protocol: service.TCP, Port: 80, NodePort: 30080}},
			Ingress: []service.Ingress{{Addr: addr("198.51.100.1")}},
		},
		{Key: service.Key{Namespace: "shop", Name: "alias"}, Type: service.ExternalName},
	}
	f.Cluster.Slices = []service.Slice{{
		Key: service.Key{Namespace: "shop", Name: "web-x"}, Service: "web", Family: 4,
		Ports: []service.SlicePort{{Name: "http", Protocol: service.TCP, Port: 8080}},
		Endpoints: []service.Endpoint{
			{Addr: addr("10.0.0.2"), Node: "n1", Ready: true, Serving: true},
			{Addr: addr("10.0.1.2"), Ready: true, Serving: true}, {Addr: addr("192.0.2.1"), Node: "n1", Ready: true, Serving: true},
		},
	}}
	f.Cluster.Nodes = []cluster.Node{{Name: "n2", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.1.0/24")}}}
	f.Cluster.Policy.Pods = []policy.Pod{{
		Key: service.Key{Namespace: "shop", Name: "web-1"}, Node: "n1", Addresses: []netip.Addr{addr("10.0.0.2")},
		Ports: []policy.NamedPort{{Name: "http", Protocol: service.TCP, Port: 8080}},
	}}
	r := objects.Remember(f)
	s, err := r.Service(ctx, key)
	if err != nil || s.Spec.External != "Local" || s.Spec.Internal != "Cluster" || s.Outer()[0] != addr("198.51.100.1") || s.Spec.Ports[0].NodePort != 30080 {
		t.Fatalf("%+v, %v", s, err)
	}
	list, _ := r.Slices(ctx, key)
	if len(list) != 1 || !list[0].Endpoints[0].Ready() || list[0].Endpoints[0].Terminating() {
		t.Fatalf("slices %+v", list)
	}
	if port, ok := list[0].Port(s.Spec.Ports[0]); !ok || port != 8080 {
		t.Errorf("its port %d, %v", port, ok)
	}
	if _, err := r.Service(ctx, service.Key{Namespace: "shop", Name: "alias"}); err == nil || errors.Is(err, person.ErrAbsent) {
		t.Errorf("for which name an alias stands is not known, and not absent: %v", err)
	}
	for _, absent := range []string{"other", "headless"} {
		if _, err := r.Service(ctx, service.Key{Namespace: "shop", Name: absent}); !errors.Is(err, person.ErrAbsent) {
			t.Errorf("%s: %v", absent, err)
		}
	}
	p, err := r.Pod(ctx, service.Key{Namespace: "shop", Name: "web-1"})
	if port, ok := p.Port("http", service.TCP); err != nil || !ok || port != 8080 || p.Addresses()[0] != addr("10.0.0.2") {
		t.Errorf("what the API server said counts: %+v, %v", p, err)
	}
	on, _ := r.PodsOn(ctx, "n1")
	at, _ := r.PodsAt(ctx, addr("10.0.0.8"))
	if len(on) != 2 || len(at) != 1 {
		t.Fatalf("%d pods on the node, %d with the address", len(on), len(at))
	}
	if port, ok := at[0].HostPort(5353, service.UDP); !ok || port != 53 {
		t.Errorf("a host port leads to %d, %v", port, ok)
	}
	if far, _ := r.PodsAt(ctx, addr("10.0.1.2")); len(far) != 1 || far[0].Spec.NodeName != "n2" {
		t.Errorf("an endpoint in a pod range is a pod's: %+v", far)
	}
	if host, _ := r.PodsAt(ctx, addr("192.0.2.1")); len(host) != 0 {
		t.Errorf("an endpoint elsewhere is none: %+v", host)
	}
	if server, _, err := r.NameServer(ctx); server != nil || !errors.Is(err, person.ErrAbsent) {
		t.Errorf("name server %v, %v", server, err)
	}
}
