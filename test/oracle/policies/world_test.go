package policies_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/test/oracle/policies"
)

// dice draws from worlds so small that their things meet often.
type dice struct{ *rand.Rand }

func pick[T any](d dice, list ...T) T { return list[d.IntN(len(list))] }

func (d dice) one(in int) bool { return d.IntN(in) == 0 }

var began = time.Unix(1_700_000_000, 0)

func (d dice) address(ipv6 bool) netip.Addr {
	if ipv6 {
		return netip.MustParseAddr(fmt.Sprintf("fd00:1::%d", d.IntN(12)+1))
	}
	return netip.AddrFrom4([4]byte{10, 1, 0, byte(d.IntN(12) + 1)})
}

// anyAddress is also of something outside the cluster, or at the end of the
// address space.
func (d dice) anyAddress(ipv6 bool) netip.Addr {
	if !d.one(4) {
		return d.address(ipv6)
	}
	if ipv6 {
		return netip.MustParseAddr(pick(d, "2001:db8::1", "2001:db8::ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "::"))
	}
	return netip.MustParseAddr(pick(d, "192.0.2.1", "192.0.2.200", "255.255.255.255", "0.0.0.0"))
}

func (d dice) block(ipv6 bool) netip.Prefix {
	a, bits := d.anyAddress(ipv6), pick(d, 32, 30, 29, 28, 24, 8, 0)
	switch {
	case ipv6:
		bits = pick(d, 128, 126, 125, 124, 64, 16, 0)
	case d.one(8):
		return netip.PrefixFrom(netip.AddrFrom16(a.As16()), 96+bits)
	}
	return netip.PrefixFrom(a, bits)
}

func (d dice) podKey() policy.Key {
	return policy.Key{Namespace: pick(d, "shop", "bank"), Name: fmt.Sprint("p", d.IntN(6))}
}

func (d dice) policyKey() policy.Key {
	return policy.Key{Namespace: pick(d, "shop", "bank"), Name: fmt.Sprint("n", d.IntN(4))}
}

func (d dice) labels() map[string]string {
	l := map[string]string{}
	if !d.one(4) {
		l["app"] = pick(d, "web", "db")
	}
	if d.one(2) {
		l["tier"] = pick(d, "front", "back")
	}
	return l
}

func (d dice) pod() policy.Pod {
	p := policy.Pod{Key: d.podKey(), Node: pick(d, here, here, "worker-2"), Labels: d.labels(), Created: began.Add(time.Duration(d.IntN(1 << 30)))}
	if !d.one(8) {
		p.Addresses = []netip.Addr{d.address(false), d.address(true)}
	}
	for range d.IntN(3) {
		p.Ports = append(p.Ports, d.named())
	}
	return p
}

func (d dice) named() policy.NamedPort {
	return policy.NamedPort{Name: pick(d, "http", "dns"), Protocol: d.protocol(), Port: d.port()}
}

func (d dice) protocol() service.Protocol {
	return pick(d, service.TCP, service.TCP, service.UDP, service.SCTP)
}

func (d dice) port() uint16 { return uint16(80 + d.IntN(4)) }

func (d dice) namespace() policy.Namespace {
	return policy.Namespace{Name: pick(d, "shop", "bank"), Labels: d.labels()}
}

func (d dice) node() policy.Node {
	return policy.Node{Name: pick(d, here, "worker-2"), Labels: d.labels(), Addresses: []netip.Addr{
		netip.AddrFrom4([4]byte{192, 0, 2, byte(d.IntN(3))}), netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", d.IntN(3))),
	}}
}

func (d dice) selector() policy.Selector {
	var s policy.Selector
	for range d.IntN(3) {
		label := pick(d, "app", "tier")
		values := []string{pick(d, "web", "db", "front", "back")}
		if d.one(3) {
			values = append(values, pick(d, "web", "db", "front", "back"))
		}
		op := pick(d, policy.In, policy.In, policy.NotIn, policy.Exists, policy.DoesNotExist)
		if (op == policy.Exists || op == policy.DoesNotExist) != d.one(20) {
			values = nil // and once in a while where there must be some
		}
		s = append(s, policy.Requirement{Label: label, Operator: op, Values: values})
	}
	return s
}

func (d dice) maybe() *policy.Selector {
	if d.one(2) {
		return nil
	}
	s := d.selector()
	return &s
}

func (d dice) peer(cluster bool) policy.Peer {
	if d.one(3) {
		p := policy.Peer{Block: d.block(d.one(2))}
		for range d.IntN(3) {
			p.Except = append(p.Except, d.block(p.Block.Addr().Is6()))
		}
		return p
	}
	if !cluster && d.one(12) {
		return policy.Peer{Unknown: true}
	}
	if cluster && d.one(4) {
		s := d.selector()
		return policy.Peer{Nodes: &s}
	}
	p := policy.Peer{Pods: d.maybe(), Namespaces: d.maybe()}
	if p.Pods == nil && p.Namespaces == nil || cluster && p.Namespaces == nil {
		s := d.selector()
		p.Namespaces = &s
	}
	return p
}

func (d dice) ports() []policy.Port {
	if d.one(3) {
		return nil
	}
	var list []policy.Port
	for range d.IntN(3) + 1 {
		p := policy.Port{Protocol: d.protocol()}
		switch d.IntN(4) {
		case 0:
			p.Name = pick(d, "http", "dns")
			if d.one(4) {
				p.Protocol = 0
			}
		case 1:
			p.First = d.port()
			p.Last = p.First + uint16(d.IntN(3))
		case 2:
			p.First = d.port()
			p.Last = p.First
		}
		list = append(list, p)
	}
	return list
}

func (d dice) rule(cluster bool) policy.Rule {
	r := policy.Rule{Ports: d.ports()}
	if !d.one(4) {
		for range d.IntN(3) + 1 {
			r.Peers = append(r.Peers, d.peer(cluster))
		}
	}
	return r
}

func (d dice) networkPolicy() policy.NetworkPolicy {
	p := policy.NetworkPolicy{Key: d.policyKey(), Pods: d.selector()}
	for _, rules := range []**policy.Rules{&p.Ingress, &p.Egress} {
		if d.one(3) {
			continue
		}
		list := policy.Rules{}
		for range d.IntN(3) {
			list = append(list, d.rule(false))
		}
		*rules = &list
	}
	return p
}

func (d dice) clusterPolicy() policy.ClusterPolicy {
	c := policy.ClusterPolicy{
		Key: policy.Key{Name: pick(d, "c1", "c2", "c3")}, Tier: pick(d, policy.Admin, policy.Baseline), Priority: d.IntN(3),
		Namespaces: d.selector(), Pods: d.maybe(),
	}
	for _, rules := range []*[]policy.ClusterRule{&c.Ingress, &c.Egress} {
		for range d.IntN(4) {
			*rules = append(*rules, d.clusterRule())
		}
	}
	if d.one(10) {
		c.Unread = "subject"
	}
	return c
}

func (d dice) clusterRule() policy.ClusterRule {
	r := policy.ClusterRule{Action: pick(d, policy.Accept, policy.Deny, policy.Pass), Rule: d.rule(true)}
	switch d.IntN(10) {
	case 0:
		r.Rule, r.Unread = policy.Rule{}, "protocols"
	case 1:
		r.Action = "Log"
	}
	return r
}

func (d dice) packet() policies.Packet {
	ipv6 := d.one(2)
	p := policies.Packet{Src: d.anyAddress(ipv6), Dst: d.anyAddress(ipv6), Proto: d.protocol(), Port: d.port()}
	if d.one(10) {
		p.Proto, p.Port = 1, 0 // no ports at all
	}
	return p
}
