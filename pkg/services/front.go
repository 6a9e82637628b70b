package services

import (
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/vip"
)

// fronts enters the addresses of one family at which a service port answers.
func (c *compiler) fronts(p service.Port, ipv6 bool, internal, external entry) {
	s := &c.plan.service
	for _, a := range s.ClusterIPs {
		if a.Is6() != ipv6 || !c.address("spec.clusterIPs", a, p) {
			continue
		}
		c.front(a, p.Port, p, internal)
		if !slices.Contains(c.plan.addresses, a) {
			c.plan.addresses = append(c.plan.addresses, a)
		}
	}
	if p.NodePort != 0 {
		for _, a := range c.node.NodePortAddresses {
			if a.Is6() == ipv6 && usable(a) {
				c.front(a, p.NodePort, p, external)
			}
		}
	}
	for _, a := range s.ExternalIPs {
		switch {
		case a.Is6() != ipv6 || !c.address("spec.externalIPs", a, p):
		case !contains(c.node.ExternalRanges, a):
			c.find(reason.ExternalAddressRefused, "spec.externalIPs: %s is outside the ranges that services.externalIPCIDRs of Poplin's configuration allows", a)
		default:
			c.front(a, p.Port, p, external)
		}
	}
	if s.Type != service.LoadBalancer {
		return
	}
	for _, in := range s.Ingress {
		if in.Proxy || in.Addr.Is6() != ipv6 || !c.address("status.loadBalancer", in.Addr, p) {
			continue
		}
		e := external
		e.sources, e.fenced = c.sources(in.Addr)
		c.front(in.Addr, p.Port, p, e)
	}
}

// address refuses what no connection could be meant for. An invalid address
// counts as IPv4.
func (c *compiler) address(field string, a netip.Addr, p service.Port) bool {
	switch {
	case !usable(a):
		c.find(reason.BadAddress, "%s: %q is no address that can be served", field, a)
	case c.forged(a, p.Protocol, p.Port):
		c.find(reason.BadAddress, "%s: UDP port %d of node address %s is the overlay's", field, p.Port, a)
	default:
		return true
	}
	return false
}

func (c *compiler) front(a netip.Addr, number uint16, p service.Port, e entry) {
	f := vip.Front{Addr: a, Proto: p.Protocol, Port: number}
	e.port = p.Name
	switch other, taken := c.plan.entries[f]; {
	case !taken, other.port == e.port && e.fenced:
		// An address may be listed twice; a fence around it holds.
		c.plan.entries[f] = e
	case other.port != e.port:
		c.find(reason.AddressInUse, "port %q: %s is taken by port %q of this Service", p.Name, f, other.port)
	}
}

// sources are the clients that spec.loadBalancerSourceRanges lets in at a
// load balancer's address. A range of the whole family is no fence, and
// neither are ranges of the other family alone.
func (c *compiler) sources(at netip.Addr) (ranges []netip.Prefix, fenced bool) {
	self := false
	for _, r := range c.plan.service.SourceRanges {
		switch {
		case !r.IsValid() || r.Addr().Is4In6():
			c.find(reason.BadAddress, "spec.loadBalancerSourceRanges: %q is no range of addresses, lets nobody in", r)
			fenced = true
			continue
		case r.Addr().Is6() != at.Is6():
			continue
		case r.Bits() == 0:
			return nil, false
		}
		ranges = append(ranges, r.Masked())
		self = self || slices.ContainsFunc(c.node.Addresses, r.Contains)
	}
	if self {
		// A node that may connect may do so from the balancer's address,
		// which is its own where a balancer binds it to a node.
		ranges = append(ranges, netip.PrefixFrom(at, at.BitLen()))
	}
	return merged(ranges), fenced || len(ranges) > 0
}

// merged leaves out ranges inside others: the kernel refuses overlaps.
func merged(ranges []netip.Prefix) []netip.Prefix {
	slices.SortFunc(ranges, func(a, b netip.Prefix) int { return a.Bits() - b.Bits() })
	var out []netip.Prefix
	for _, r := range ranges {
		if !slices.ContainsFunc(out, func(o netip.Prefix) bool { return o.Overlaps(r) }) {
			out = append(out, r)
		}
	}
	return out
}
