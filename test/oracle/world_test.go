package oracle_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/services"
	"poplin.dev/poplin/test/oracle"
)

// dice makes objects in a world so small that they meet all the time.
type dice struct{ *rand.Rand }

func (d dice) one(in int) bool { return d.IntN(in) == 0 }

func pick[T any](d dice, list ...T) T { return list[d.IntN(len(list))] }

func (d dice) key() service.Key {
	return service.Key{Namespace: pick(d, "a", "b"), Name: fmt.Sprintf("s%d", d.IntN(6))}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func (d dice) clusterIP(ipv6 bool) netip.Addr {
	if ipv6 {
		return addr(fmt.Sprintf("fd00:96::%x", 1+d.IntN(8)))
	}
	return addr(fmt.Sprintf("10.96.0.%d", 1+d.IntN(8)))
}

func (d dice) external(ipv6 bool) netip.Addr {
	if ipv6 {
		return pick(d, addr("2001:db8::1"), addr("2001:db8::2"), addr("2001:db8:bad::1"), addr("fd00:30::11"))
	}
	return pick(d, addr("203.0.113.1"), addr("203.0.113.2"), addr("198.51.100.1"), addr("172.30.0.11"))
}

// endpoint addresses tell the node: the last but one part is its number.
func (d dice) pod(ipv6 bool) netip.Addr {
	node := 1 + d.IntN(3)
	switch {
	case d.one(12) && ipv6:
		return addr(fmt.Sprintf("fd00:30::1%d", node))
	case d.one(12):
		return addr(fmt.Sprintf("172.30.0.1%d", node))
	case ipv6:
		return addr(fmt.Sprintf("fd00:244::%d:%x", node, 2+d.IntN(3)))
	}
	return addr(fmt.Sprintf("10.244.%d.%d", node, 2+d.IntN(3)))
}

func nodeOf(a netip.Addr) string {
	for n := 1; n <= 3; n++ {
		for _, p := range []string{fmt.Sprintf("10.244.%d.0/24", n), fmt.Sprintf("fd00:244::%d:0/112", n), fmt.Sprintf("172.30.0.1%d/32", n), fmt.Sprintf("fd00:30::1%d/128", n)} {
			if netip.MustParsePrefix(p).Contains(a) {
				return fmt.Sprintf("worker-%d", n)
			}
		}
	}
	return ""
}

func (d dice) proto() service.Protocol {
	return pick(d, service.TCP, service.TCP, service.UDP, service.SCTP)
}

// usual is mostly the same for the same port, so that slices fit Services.
func (d dice) usual(port int) service.Protocol {
	if d.one(5) {
		return d.proto()
	}
	return []service.Protocol{service.TCP, service.UDP}[port%2]
}

func (d dice) service() service.Service {
	s := service.Service{
		Key: d.key(), Created: time.Unix(int64(d.IntN(3)), 0),
		Type:          pick(d, service.ClusterIP, service.NodePort, service.LoadBalancer, service.LoadBalancer),
		InternalLocal: d.one(4), ExternalLocal: d.one(2),
	}
	if d.one(12) {
		s.ProxyName = "other"
	}
	if d.one(12) {
		s.Type = service.ExternalName
	}
	families := pick(d, []bool{false}, []bool{true}, []bool{false, true}, []bool{false, true})
	if d.one(12) {
		families = nil
	}
	for _, v6 := range families {
		s.ClusterIPs = append(s.ClusterIPs, d.clusterIP(v6))
	}
	for range 1 + d.IntN(2) {
		s.Ports = append(s.Ports, service.Port{
			Name: fmt.Sprintf("p%d", len(s.Ports)), Protocol: d.usual(len(s.Ports)), Port: pick[uint16](d, 80, 443, 53, 8472, 0),
		})
		if s.Type != service.ClusterIP && !d.one(3) {
			s.Ports[len(s.Ports)-1].NodePort = pick[uint16](d, 30000, 30001, 80)
		}
	}
	for range d.IntN(3) {
		s.ExternalIPs = append(s.ExternalIPs, d.external(d.one(2)))
	}
	for range d.IntN(3) {
		s.Ingress = append(s.Ingress, service.Ingress{Addr: d.external(d.one(2)), Proxy: d.one(4)})
	}
	if d.one(3) {
		for range d.IntN(3) {
			s.SourceRanges = append(s.SourceRanges, pick(d,
				netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("192.0.2.7/32"), netip.MustParsePrefix("172.30.0.0/24"),
				netip.MustParsePrefix("2001:db8:c::/48"), netip.MustParsePrefix("fd00:30::/64"), netip.MustParsePrefix("0.0.0.0/0"), netip.Prefix{}))
		}
	}
	if d.one(3) {
		s.Affinity = time.Duration(1+d.IntN(3)) * time.Hour
	}
	if s.Type == service.LoadBalancer && s.ExternalLocal {
		s.HealthCheckNodePort = 32000
	}
	return s
}

func (d dice) slice(of service.Key) service.Slice {
	s := service.Slice{
		Key:     service.Key{Namespace: of.Namespace, Name: fmt.Sprintf("%s-%d", of.Name, d.IntN(3))},
		Service: of.Name, Family: pick(d, 4, 4, 6, 6, 0),
	}
	for i := range 1 + d.IntN(2) {
		s.Ports = append(s.Ports, service.SlicePort{Name: fmt.Sprintf("p%d", i), Protocol: d.usual(i), Port: pick[uint16](d, 8080, 9090, 8472, 0)})
	}
	hints := d.one(2)
	for range d.IntN(5) {
		e := service.Endpoint{Addr: d.pod(s.Family == 6), Ready: !d.one(3), Serving: !d.one(3), Terminating: d.one(3)}
		if d.one(20) {
			e.Addr = pick(d, netip.Addr{}, addr("127.0.0.1"), addr("::1"), addr("224.0.0.1"), addr("::ffff:10.244.1.2"), addr("10.244.1.2"), addr("fd00:244::1:2"))
		}
		e.Node = nodeOf(e.Addr)
		if hints && !d.one(8) {
			e.ForZones = []string{pick(d, "east", "west")}
			if d.one(2) {
				e.ForNodes = []string{pick(d, "worker-1", "worker-2")}
			}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	return s
}

func (d dice) packet() oracle.Packet {
	v6 := d.one(2)
	p := oracle.Packet{Proto: d.proto(), Port: pick[uint16](d, 80, 443, 53, 8472, 30000, 30001, 81)}
	if d.one(30) {
		p.Proto = 1
	}
	p.Dst = d.clusterIP(v6)
	if d.one(2) {
		p.Dst = d.external(v6)
	}
	if d.one(40) {
		p.Dst = map[bool]netip.Addr{false: addr("8.8.8.8"), true: addr("2001:4860::8")}[v6]
	}
	switch d.IntN(3) {
	case 0:
		p.FromPod = true
		p.Src = map[bool]netip.Addr{false: addr(fmt.Sprintf("10.244.1.%d", 2+d.IntN(3))), true: addr(fmt.Sprintf("fd00:244::1:%d", 2+d.IntN(3)))}[v6]
	case 1:
		p.FromNode = true
		p.Src = map[bool]netip.Addr{false: addr("172.30.0.11"), true: addr("fd00:30::11")}[v6]
	default:
		p.Src = pick(d, addr("192.0.2.7"), addr("192.0.2.8"), addr("10.244.2.3"), addr("203.0.113.1"))
		if v6 {
			p.Src = pick(d, addr("2001:db8:c::7"), addr("2001:db8:d::7"), addr("fd00:244::2:3"), addr("2001:db8::1"))
		}
	}
	return p
}

// node is what the compiler is told; the world holds the same for the oracle.
func node(w oracle.World) services.Node {
	return services.Node{
		Name: w.NodeName, Zone: w.Zone, Addresses: w.NodeAddresses, NodePortAddresses: w.NodePortAddresses,
		IsNodeAddress:  func(a netip.Addr) bool { return slices.Contains(w.AllNodeAddresses, a) },
		OverlayPort:    w.OverlayPort,
		ExternalRanges: w.ExternalRanges, ServiceRanges: w.Allocated,
	}
}

func world() oracle.World {
	return oracle.World{
		NodeName: "worker-1", Zone: "east",
		NodeAddresses:     []netip.Addr{addr("172.30.0.11"), addr("fd00:30::11")},
		NodePortAddresses: []netip.Addr{addr("172.30.0.11"), addr("fd00:30::11"), addr("127.0.0.1")},
		AllNodeAddresses: []netip.Addr{addr("172.30.0.11"), addr("fd00:30::11"), addr("172.30.0.12"), addr("fd00:30::12"),
			addr("172.30.0.13"), addr("fd00:30::13")},
		ExternalRanges: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/64"), netip.MustParsePrefix("172.30.0.0/24"), netip.MustParsePrefix("fd00:30::/64")},
		Allocated:      []netip.Prefix{netip.MustParsePrefix("10.96.0.0/28"), netip.MustParsePrefix("fd00:96::/124")},
		OverlayPort:    8472,
	}
}
