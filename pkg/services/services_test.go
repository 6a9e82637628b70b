package services

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/vip"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func testNode() Node {
	return Node{
		Name: "worker-1", Zone: "east",
		Addresses:         []netip.Addr{addr("172.30.0.11"), addr("fd00:30::11")},
		NodePortAddresses: []netip.Addr{addr("172.30.0.11"), addr("fd00:30::11")},
		IsNodeAddress:     func(a netip.Addr) bool { return netip.MustParsePrefix("172.30.0.0/24").Contains(a) },
		OverlayPort:       8472,
		ExternalRanges:    []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
		ServiceRanges:     []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
	}
}

// web is a Service in both families with two endpoints, one on this node.
func web() (service.Service, []service.Slice) {
	s := service.Service{
		Key: service.Key{Namespace: "shop", Name: "web"}, Type: service.LoadBalancer,
		ClusterIPs: []netip.Addr{addr("10.96.0.10"), addr("fd00:96::10")},
		Ports:      []service.Port{{Name: "http", Protocol: service.TCP, Port: 80, NodePort: 30080}},
	}
	slice := func(family int, addrs ...string) service.Slice {
		out := service.Slice{
			Key: service.Key{Namespace: "shop", Name: fmt.Sprintf("web-%d", family)}, Service: "web", Family: family,
			Ports: []service.SlicePort{{Name: "http", Protocol: service.TCP, Port: 8080}},
		}
		for i, a := range addrs {
			out.Endpoints = append(out.Endpoints, service.Endpoint{Addr: addr(a), Node: fmt.Sprintf("worker-%d", i+1), Ready: true, Serving: true})
		}
		return out
	}
	return s, []service.Slice{slice(4, "10.244.1.2", "10.244.2.2"), slice(6, "fd00:244:1::2", "fd00:244:2::2")}
}

func TestProgramOfAService(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*service.Service, []service.Slice)
		want   []string // lines that must be there
		not    []string // and parts that must not
	}{
		{"as it is", func(*service.Service, []service.Slice) {}, []string{
			"frontends 10.96.0.10 . tcp . 80 : one of 2 in 0:10",
			"frontends fd00:96::10 . tcp . 80 : one of 2 in 0:11",
			"frontends 172.30.0.11 . tcp . 30080 : one of 2 in 0:10, masqueraded",
			"endpoints 0:10 . 0 : 10.244.1.2:8080",
			"endpoints 0:10 . 1 : 10.244.2.2:8080",
			"endpoints 0:11 . 0 : [fd00:244:1::2]:8080",
			"addresses 10.96.0.10", "ranges 10.96.0.0/16", "hairpins 10.244.1.2", "hairpins fd00:244:1::2",
		}, []string{"outside", "sources", "timeouts", "hairpins 10.244.2.2"}},
		{"external policy Local", func(s *service.Service, _ []service.Slice) { s.ExternalLocal = true }, []string{
			"frontends 172.30.0.11 . tcp . 30080 : one of 2 in 0:10",
			"outside 172.30.0.11 . tcp . 30080 : one of 1 in 0:11",
			"endpoints 0:11 . 0 : 10.244.1.2:8080",
		}, []string{"outside 10.96.0.10", "masqueraded"}},
		{"policy Local without a local endpoint", func(s *service.Service, l []service.Slice) {
			s.ExternalLocal, s.InternalLocal = true, true
			l[0].Endpoints = l[0].Endpoints[1:]
		}, []string{
			"frontends 10.96.0.10 . tcp . 80 : drop",
			"frontends 172.30.0.11 . tcp . 30080 : one of 1 in 0:10",
			"outside 172.30.0.11 . tcp . 30080 : drop",
			"frontends fd00:96::10 . tcp . 80 : one of 1 in 0:12",
		}, nil},
		{"no endpoint anywhere", func(_ *service.Service, l []service.Slice) { l[0].Endpoints, l[1].Endpoints = nil, nil }, []string{
			"frontends 10.96.0.10 . tcp . 80 : refuse", "frontends 172.30.0.11 . tcp . 30080 : refuse",
		}, []string{"endpoints", "hairpins"}},
		{"affinity", func(s *service.Service, _ []service.Slice) { s.Affinity = 3 * time.Hour }, []string{
			"frontends 10.96.0.10 . tcp . 80 : one of 2 in 0:10, sticky",
			"frontends 172.30.0.11 . tcp . 30080 : one of 2 in 0:10, sticky, masqueraded",
			"timeouts 10.96.0.10 . tcp . 80 : 10800",
		}, nil},
		{"load balancer with source ranges", func(s *service.Service, _ []service.Slice) {
			s.Ingress = []service.Ingress{{Addr: addr("198.51.100.1")}, {Addr: addr("198.51.100.2"), Proxy: true}}
			s.SourceRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("172.30.0.0/16"), netip.MustParsePrefix("192.0.2.128/25")}
		}, []string{
			"frontends 198.51.100.1 . tcp . 80 : one of 2 in 0:10, masqueraded",
			"fenced 198.51.100.1 . tcp . 80",
			"sources 198.51.100.1 . tcp . 80 . 192.0.2.0/24",
			"sources 198.51.100.1 . tcp . 80 . 172.30.0.0/16",
			"sources 198.51.100.1 . tcp . 80 . 198.51.100.1/32",
		}, []string{"198.51.100.2", "192.0.2.128/25", "fenced 10.96.0.10", "fenced 172.30.0.11"}},
		{"another proxy's", func(s *service.Service, _ []service.Slice) { s.ProxyName = "mesh" }, nil, []string{"frontends", "addresses"}},
		{"headless", func(s *service.Service, _ []service.Slice) { s.ClusterIPs = nil }, nil, []string{"frontends"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := NewTable(testNode(), vip.New())
			s, list := web()
			c.change(&s, list)
			table.Set(s, list)
			if f := table.Findings(s.Key); len(f) > 0 {
				t.Errorf("findings: %v", f)
			}
			got := table.Program().String()
			for _, line := range c.want {
				if !strings.Contains("\n"+got, "\n"+line+"\n") {
					t.Errorf("no line %q", line)
				}
			}
			for _, part := range c.not {
				if strings.Contains(got, part) {
					t.Errorf("contains %q", part)
				}
			}
			table.Delete(s.Key)
			if left := table.Program(); left.Len() != 1 {
				t.Errorf("after deletion:\n%s", left)
			}
			if t.Failed() {
				t.Log("program:\n" + got)
			}
		})
	}
}

// What is wrong is named, and the rest is served.
func TestFindings(t *testing.T) {
	for _, c := range []struct {
		name    string
		reason  reason.Reason
		message string
		slice   bool
		change  func(*service.Service, []service.Slice)
	}{
		{"port 0 in a slice", reason.BadEndpoint, `port "http": number 0`, true, func(_ *service.Service, l []service.Slice) { l[1].Ports[0].Port = 0 }},
		{"wrong family", reason.BadEndpoint, "10.244.3.3 is not of the slice's address type IPv6", true,
			func(_ *service.Service, l []service.Slice) { l[1].Endpoints[0].Addr = addr("10.244.3.3") }},
		{"mapped address", reason.BadEndpoint, "::ffff:10.244.3.3", true,
			func(_ *service.Service, l []service.Slice) { l[1].Endpoints[0].Addr = addr("::ffff:10.244.3.3") }},
		{"loopback", reason.BadEndpoint, "127.0.0.1", true, func(_ *service.Service, l []service.Slice) { l[0].Endpoints[1].Addr = addr("127.0.0.1") }},
		{"the overlay's port of a node", reason.BadEndpoint, "UDP port 8472 of a node", true, func(s *service.Service, l []service.Slice) {
			s.Ports = append(s.Ports, service.Port{Name: "u", Protocol: service.UDP, Port: 99})
			l[0].Ports = append(l[0].Ports, service.SlicePort{Name: "u", Protocol: service.UDP, Port: 8472})
			l[0].Endpoints[1].Addr = addr("172.30.0.12")
		}},
		{"external address outside the ranges", reason.ExternalAddressRefused, "8.8.8.8", false,
			func(s *service.Service, _ []service.Slice) { s.ExternalIPs = []netip.Addr{addr("8.8.8.8")} }},
		{"impossible address", reason.BadAddress, "224.0.0.5", false,
			func(s *service.Service, _ []service.Slice) { s.Ingress = []service.Ingress{{Addr: addr("224.0.0.5")}} }},
		{"no port", reason.BadPort, "port 0", false,
			func(s *service.Service, _ []service.Slice) {
				s.Ports = append(s.Ports, service.Port{Name: "zero", Protocol: service.TCP})
			}},
		{"unknown protocol", reason.BadPort, "protocol 6", false,
			func(s *service.Service, _ []service.Slice) {
				s.Ports = append(s.Ports, service.Port{Protocol: 60, Port: 1})
			}},
		{"two ports, one number", reason.AddressInUse, "taken by port", false, func(s *service.Service, _ []service.Slice) {
			s.Ports = append(s.Ports, service.Port{Name: "again", Protocol: service.TCP, Port: 80})
		}},
		{"a range that is none", reason.BadAddress, "loadBalancerSourceRanges", false, func(s *service.Service, _ []service.Slice) {
			s.Ingress, s.SourceRanges = []service.Ingress{{Addr: addr("198.51.100.1")}}, []netip.Prefix{{}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := NewTable(testNode(), vip.New())
			s, list := web()
			c.change(&s, list)
			table.Set(s, list)
			got := table.Findings(s.Key)
			for _, f := range got { // one, or one for each family
				if f.Reason != c.reason || !strings.Contains(f.Message, c.message) || f.Slice != c.slice {
					t.Errorf("got %v, want a finding %s about %q", f, c.reason, c.message)
				}
			}
			if len(got) == 0 || len(got) > 2 {
				t.Errorf("%d findings: %v", len(got), got)
			}
			if v := table.Program().Frontends[vip.Front{Addr: addr("10.96.0.10"), Proto: service.TCP, Port: 80}]; v.Count() == 0 {
				t.Errorf("the rest is not served: %s", v)
			}
		})
	}
}

func TestTwoServicesClaimOneNodePort(t *testing.T) {
	table := NewTable(testNode(), vip.New())
	young, list := web()
	young.Created = time.Unix(2, 0)
	old := young
	old.Name, old.Created, old.ClusterIPs = "old", time.Unix(1, 0), []netip.Addr{addr("10.96.0.20")}
	table.Set(young, list)
	table.Set(old, nil)
	front := vip.Front{Addr: addr("172.30.0.11"), Proto: service.TCP, Port: 30080}
	if v := table.Program().Frontends[front]; v != vip.Refuse {
		t.Errorf("the older Service has the port and no endpoint, got %s", v)
	}
	if f := table.Findings(young.Key); len(f) != 2 || !strings.Contains(f[0].Message, "shop/old") {
		t.Errorf("findings of the younger: %v", f)
	}
	table.Delete(old.Key)
	if v := table.Program().Frontends[front]; v.Count() != 2 {
		t.Errorf("the port does not fall to the younger Service: %s", v)
	}
}

// One endpoint more or less is a change of a few elements, also where there
// are many.
func TestAChangeCostsAsMuchAsItChanges(t *testing.T) {
	table := NewTable(testNode(), vip.New())
	s, list := web()
	for i := range 1000 {
		list[0].Endpoints = append(list[0].Endpoints, service.Endpoint{
			Addr: netip.AddrFrom4([4]byte{10, 244, byte(100 + i/250), byte(i % 250)}), Ready: true, Serving: true})
	}
	table.Set(s, list)
	table.Take()
	for _, ready := range []bool{false, true} {
		list[0].Endpoints[500].Ready = ready
		table.Set(s, list)
		c := table.Take()
		// Two fronts in IPv4, and at most the slot that got free.
		if n := c.Put.Len(); n == 0 || n > 3 {
			t.Errorf("ready=%v puts %d elements:\n%s", ready, n, c.Put)
		}
	}
	if c := table.Take(); !c.Empty() {
		t.Errorf("nothing changed, but:\n%s%s", c.Delete, c.Put)
	}
}

func TestMoreEndpointsThanAGroupHolds(t *testing.T) {
	table := NewTable(testNode(), vip.New())
	s, list := web()
	list[0].Endpoints = nil
	for i := range 100_000 {
		list[0].Endpoints = append(list[0].Endpoints, service.Endpoint{
			Addr: netip.AddrFrom4([4]byte{10, byte(128 + i>>16), byte(i >> 8), byte(i)}), Ready: true, Serving: true})
	}
	list[0].Endpoints = slices.DeleteFunc(list[0].Endpoints, func(e service.Endpoint) bool { return !usable(e.Addr) })
	table.Set(s, list)
	if v := table.Program().Frontends[vip.Front{Addr: addr("10.96.0.10"), Proto: service.TCP, Port: 80}]; v.Count() != vip.MaxEndpoints {
		t.Errorf("got %s", v)
	}
	if f := table.Findings(s.Key); len(f) != 1 || f[0].Reason != reason.TooManyEndpoints {
		t.Errorf("findings: %v", f)
	}
}

func TestHealthCountsReadyAddressesOnThisNode(t *testing.T) {
	table := NewTable(testNode(), vip.New())
	s, list := web()
	s.HealthCheckNodePort, s.ExternalLocal = 32000, true
	list[1].Endpoints = nil
	list[0].Endpoints = append(list[0].Endpoints, service.Endpoint{Addr: addr("10.244.1.9"), Node: "worker-1", Serving: true, Terminating: true})
	table.Set(s, list)
	if h, ok := table.Health(s.Key); !ok || h != (Health{Port: 32000, Endpoints: 1}) {
		t.Errorf("got %+v, %v", h, ok)
	}
	// Another port on another pod of this node.
	s.Ports = append(s.Ports, service.Port{Name: "more", Protocol: service.TCP, Port: 81})
	more := list[0]
	more.Name, more.Ports = "web-more", []service.SlicePort{{Name: "more", Protocol: service.TCP, Port: 8081}}
	more.Endpoints = []service.Endpoint{{Addr: addr("10.244.1.7"), Node: "worker-1", Ready: true, Serving: true}}
	table.Set(s, append(list, more))
	if h, _ := table.Health(s.Key); h.Endpoints != 2 {
		t.Errorf("two ports on two pods: %+v", h)
	}
	s.ExternalLocal = false
	table.Set(s, list)
	if h, ok := table.Health(s.Key); ok {
		t.Errorf("policy Cluster needs no health check, got %+v", h)
	}
}

func TestStaleFlows(t *testing.T) {
	table := NewTable(testNode(), vip.New())
	s, list := web()
	s.Ports[0].Protocol, list[0].Ports[0].Protocol = service.UDP, service.UDP
	list[0].Endpoints = append(list[0].Endpoints, service.Endpoint{Addr: addr("10.244.1.9"), Serving: true, Terminating: true})
	table.Set(s, list)
	front := vip.Front{Addr: addr("10.96.0.10"), Proto: service.UDP, Port: 80}
	stale := func(want bool, to string) {
		t.Helper()
		if got := table.Stale(front, netip.MustParseAddrPort(to)); got != want {
			t.Errorf("flow to %s: stale %v", to, got)
		}
	}
	stale(false, "10.244.1.2:8080")
	stale(false, "10.244.1.9:8080") // drains
	stale(true, "10.244.1.2:9090")
	stale(true, "10.244.7.7:8080")
	list[0].Endpoints[0].Ready, list[0].Endpoints[0].Serving = false, false
	table.Set(s, list)
	stale(true, "10.244.1.2:8080")
	table.Set(s, nil) // no endpoint at all
	stale(true, "10.244.2.2:8080")
	table.Delete(s.Key)
	table.Take()
	stale(true, "10.244.2.2:8080")
	if !table.EndsFlows() {
		t.Error("flows end, and nobody is told")
	}
	front.Addr, front.Port = addr("192.0.2.1"), 30080
	table.gone[front] = true
	table.Take()
	stale(true, "10.244.2.2:8080") // until somebody has looked at the flows
	table.FlowsEnded()
	stale(false, "10.244.2.2:8080")
	if table.EndsFlows() {
		t.Error("flows have ended, and are still waited for")
	}
	front.Addr = addr("8.8.8.8") // was never a Service's
	stale(false, "8.8.4.4:53")
}
