package overlay

import (
	"fmt"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster"
)

// Refusal is a node that is not programmed, and why.
type Refusal struct{ Node, Reason string }

// Peers decides which nodes are programmed. A node whose claim contradicts
// an older node's is refused whole, never in part: half a peer is harder to
// understand than none. A node without ranges is not a peer yet, and no
// mistake either. within, if any, bounds what may be claimed.
func Peers(s Self, nodes []cluster.Node, within []netip.Prefix) (peers []cluster.Node, refused []Refusal) {
	nodes = slices.Clone(nodes)
	cluster.SortNodes(nodes)
	taken := newClaims(s, nodes)
	peers = make([]cluster.Node, 0, len(nodes))
	for _, n := range nodes {
		if n.Name == s.Name || len(n.PodCIDRs) == 0 {
			continue
		}
		err := acceptable(s, n, within)
		if err == nil {
			err = taken.add(n)
		}
		if err != nil {
			refused = append(refused, Refusal{Node: n.Name, Reason: err.Error()})
			continue
		}
		peers = append(peers, n)
	}
	return peers, refused
}

// Contested says why other nodes do not follow this one: what it claims lies
// outside the cluster's ranges, or is an older node's.
func Contested(s Self, nodes []cluster.Node, within []netip.Prefix) error {
	for _, p := range s.PodCIDRs {
		if !inside(p, within) {
			return fmt.Errorf("this node's podCIDRs: %s is outside the cluster's ranges %v", p, within)
		}
	}
	nodes = slices.Clone(nodes)
	cluster.SortNodes(nodes)
	for _, n := range nodes {
		if n.Name == s.Name {
			return nil // those that follow are younger
		}
		for _, theirs := range n.PodCIDRs {
			for _, ours := range s.PodCIDRs {
				if ours.Overlaps(theirs) {
					return fmt.Errorf("this node's podCIDRs: %s overlaps %s of node %s, which had it first: pods here would not be reached; remove that node's NodeNetwork if it is gone, or give this node another range", ours, theirs, n.Name)
				}
			}
		}
	}
	return nil
}

// acceptable judges a node by itself.
func acceptable(s Self, n cluster.Node, within []netip.Prefix) error {
	if err := n.Validate(); err != nil {
		return err
	}
	if n.VTEP.Addr.Is4() != s.Underlay.Addr.Is4() {
		return fmt.Errorf("vtep.address: %s is not of the family of this node's %s: the first InternalIP of all nodes must have one family",
			n.VTEP.Addr, s.Underlay.Addr)
	}
	if err := s.reaches(n); err != nil {
		return err
	}
	for _, p := range n.PodCIDRs {
		if !inside(p, within) {
			return fmt.Errorf("podCIDRs: %s is outside the cluster's ranges %v", p, within)
		}
		if p.Contains(s.Underlay.Addr) || p.Contains(n.VTEP.Addr) {
			return fmt.Errorf("podCIDRs: %s holds a node's own address; pods and nodes need ranges of their own", p)
		}
	}
	return nil
}

// reaches says why there is no way to a node: one without a tunnel, at either
// end, must be a neighbour.
func (s Self) reaches(n cluster.Node) error {
	if !s.NoTunnel && n.VTEP.Tunnel() {
		return nil
	}
	for _, p := range n.PodCIDRs {
		if _, ok := s.neighbour(n, p); ok || !s.hasFamily(p) {
			continue
		}
		if s.NoTunnel {
			return fmt.Errorf("direct: %v offers no way to %s from this node's %v, which mode direct needs: both need an address of one network and mode direct or directRouting, or use mode vxlan",
				n.Direct, p, s.Direct)
		}
		return fmt.Errorf("vtep.mac: missing, the node has mode direct, and its %v offer no way to %s from this node's %v: switch directRouting on where both are in one network, or use mode vxlan there",
			n.Direct, p, s.Direct)
	}
	return nil
}

// inside reports that one of the outer ranges, if there are any, holds p.
func inside(p netip.Prefix, outer []netip.Prefix) bool {
	return len(outer) == 0 || slices.ContainsFunc(outer, func(o netip.Prefix) bool {
		return o.Bits() <= p.Bits() && o.Contains(p.Addr())
	})
}

// claims is who has what. This node's own come first, whatever its age: its
// pods are here.
type claims struct {
	addrs map[netip.Addr]string
	macs  map[cluster.MAC]string
	// ranges are the claimed ones; within holds, for each length that any
	// node uses, the ranges that a claimed one lies in. So an overlap is
	// found by looking up, not by comparing each with each.
	ranges, within map[netip.Prefix]claim
	lengths        []int
}

type claim struct {
	prefix netip.Prefix
	node   string
}

func newClaims(s Self, nodes []cluster.Node) *claims {
	c := &claims{
		addrs:  make(map[netip.Addr]string, len(nodes)+1),
		macs:   make(map[cluster.MAC]string, len(nodes)+1),
		ranges: make(map[netip.Prefix]claim, (len(nodes)+1)*len(s.PodCIDRs)),
		within: map[netip.Prefix]claim{},
	}
	c.addrs[s.Underlay.Addr], c.macs[s.MAC] = s.Name, s.Name // also where it has no tunnel: it may get one
	for _, n := range append(nodes, s.Node()) {
		for _, p := range n.PodCIDRs {
			if !slices.Contains(c.lengths, p.Bits()) {
				c.lengths = append(c.lengths, p.Bits())
			}
		}
	}
	for _, p := range s.PodCIDRs {
		c.insert(p, s.Name)
	}
	return c
}

// add registers all that n claims, or nothing.
func (c *claims) add(n cluster.Node) error {
	if who, ok := c.addrs[n.VTEP.Addr]; ok {
		return fmt.Errorf("vtep.address: %s belongs to node %s", n.VTEP.Addr, who)
	}
	for _, p := range n.Direct {
		if who, ok := c.addrs[p.Addr()]; ok {
			return fmt.Errorf("direct: %s belongs to node %s", p.Addr(), who)
		}
	}
	if who, ok := c.macs[n.VTEP.MAC]; ok && n.VTEP.Tunnel() {
		return fmt.Errorf("vtep.mac: %s belongs to node %s", n.VTEP.MAC, who)
	}
	for _, p := range n.PodCIDRs {
		if other, ok := c.overlap(p); ok {
			return fmt.Errorf("podCIDRs: %s overlaps %s of node %s", p, other.prefix, other.node)
		}
	}
	c.addrs[n.VTEP.Addr], c.macs[n.VTEP.MAC] = n.Name, n.Name
	for _, p := range n.Direct {
		c.addrs[p.Addr()] = n.Name
	}
	for _, p := range n.PodCIDRs {
		c.insert(p, n.Name)
	}
	return nil
}

// overlap finds a claimed range inside p, or around it.
func (c *claims) overlap(p netip.Prefix) (claim, bool) {
	if inner, ok := c.within[p]; ok {
		return inner, true
	}
	for _, bits := range c.lengths {
		if bits > p.Bits() {
			continue
		}
		if outer, ok := c.ranges[netip.PrefixFrom(p.Addr(), bits).Masked()]; ok {
			return outer, true
		}
	}
	return claim{}, false
}

func (c *claims) insert(p netip.Prefix, node string) {
	c.ranges[p] = claim{p, node}
	for _, bits := range c.lengths {
		if bits < p.Bits() {
			c.within[netip.PrefixFrom(p.Addr(), bits).Masked()] = claim{p, node}
		}
	}
}
