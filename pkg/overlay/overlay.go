// Package overlay compiles the pod network's program: how this node reaches
// every other node's pods. Inputs are this node's facts and the nodes of the
// cluster; outputs are a fragment of program.Net for this node's own device
// and one for each peer, and the list of nodes that are refused, with the
// reason. It refuses nodes that are invalid, that claim this node's address,
// MAC address or pods, or what an older node claims, and those that the node
// has no way to.
//
// The wire format is flannel's: VXLAN with one permanent neighbour, one
// forwarding entry and one onlink route for each peer and family.
package overlay

import (
	"fmt"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program"
)

// Link is the overlay device. No dot is in the name: sysctl paths use dots.
const Link = "poplin-vx"

// ownMetric puts the unreachable route for a node's own range behind any
// other route to the same range, such as that of a bridge which is being
// replaced. Pods' own routes win by being longer.
const ownMetric = 4096

// Outer headers of a VXLAN packet: Ethernet 14, IP 20 or 40, UDP 8, VXLAN 8.
const (
	overhead4 = 50
	overhead6 = 70
)

// minMTU6 is what every link that carries IPv6 must allow (RFC 8200, section 5).
const minMTU6 = 1280

// Self is what the compiler knows of this node.
type Self struct {
	Name     string
	PodCIDRs []netip.Prefix
	MAC      cluster.MAC
	Underlay cluster.Underlay
	// MTU of the overlay device; 0 derives it from the underlay.
	MTU  int
	VNI  uint32
	Port uint16
	// SoftwareChecksum has the CPU fill in checksums of encapsulated packets.
	SoftwareChecksum bool
	// NoTunnel has the node reach others directly or not at all.
	NoTunnel bool
	// Direct are this node's addresses on the underlay device, with the
	// length of their networks' prefixes, if it routes directly to nodes that
	// are in the same network and do so too.
	Direct []netip.Prefix
}

// MTUOf is what is left of an underlay's MTU inside the overlay.
func MTUOf(u cluster.Underlay) int {
	if u.Addr.Is4() {
		return u.MTU - overhead4
	}
	return u.MTU - overhead6
}

func (s Self) largestMTU() int {
	if s.NoTunnel {
		return s.Underlay.MTU
	}
	return MTUOf(s.Underlay)
}

// Resolve fills in the MTU and says which fact makes this node unable to
// take part.
func (s Self) Resolve() (Self, error) {
	if err := cluster.ValidatePodCIDRs(s.PodCIDRs); err != nil {
		return s, fmt.Errorf("this node's %w", err)
	}
	largest := s.largestMTU()
	switch {
	case s.MTU == 0:
		s.MTU = largest
	case s.MTU > largest:
		return s, fmt.Errorf("mtu: %d does not fit into packets of %s (MTU %d): at most %d, or remove the key to derive it",
			s.MTU, s.Underlay.Link, s.Underlay.MTU, largest)
	}
	for _, p := range s.PodCIDRs {
		if p.Addr().Is6() && s.MTU < minMTU6 {
			return s, fmt.Errorf("mtu: %d is too small for the IPv6 range %s: IPv6 needs %d, so %s needs an MTU of %d",
				s.MTU, p, minMTU6, s.Underlay.Link, s.Underlay.MTU+minMTU6-s.MTU)
		}
	}
	for _, p := range s.PodCIDRs {
		if s.NoTunnel && !slices.ContainsFunc(s.Direct, func(d netip.Prefix) bool { return sameFamily(d, p) }) {
			return s, fmt.Errorf("mode direct: %s holds no InternalIP of this node, of the family of its pod range %s, that is in a network with others: use mode vxlan",
				s.Underlay.Link, p)
		}
	}
	if err := s.Node().Validate(); err != nil {
		return s, fmt.Errorf("this node's %w", err)
	}
	return s, nil
}

// Node is what s publishes of itself.
func (s Self) Node() cluster.Node {
	n := cluster.Node{
		Name:     s.Name,
		PodCIDRs: s.PodCIDRs,
		VTEP:     cluster.VTEP{Addr: s.Underlay.Addr},
		MTU:      s.MTU,
		Direct:   s.Direct,
	}
	if !s.NoTunnel {
		n.VTEP.MAC = s.MAC
	}
	return n
}

// Local compiles this node's own fragment.
func Local(s Self) program.Net {
	n := program.Net{Sysctls: sysctls(s)}
	if !s.NoTunnel {
		n.Link = program.VXLAN{
			Name: Link, VNI: s.VNI, Port: s.Port,
			Local: s.Underlay.Addr, Parent: s.Underlay.Link, ParentIndex: s.Underlay.Index,
			MTU: s.MTU, MAC: s.MAC, SoftwareChecksum: s.SoftwareChecksum,
		}
	}
	for _, p := range s.PodCIDRs {
		if !s.NoTunnel {
			n.Addrs = append(n.Addrs, vtep(p))
		}
		// Without it a packet for an address that no pod has would follow
		// the default route out of the node, and perhaps come back.
		n.Routes = append(n.Routes, program.Route{Dst: p, Metric: ownMetric})
	}
	return n
}

// Peer compiles the fragment of one other node: for each family that both
// have, its VTEP's inner address is the first address of its range. The way
// into the tunnel stands also where the route does not use it, so that a
// change between the two ways is the change of one route.
func Peer(s Self, n cluster.Node) program.Net {
	var out program.Net
	s.reach(n, &out)
	return out
}

// reach adds what Peer is to a program.
func (s Self) reach(n cluster.Node, out *program.Net) {
	tunnel := !s.NoTunnel && n.VTEP.Tunnel()
	if tunnel {
		out.FDB = append(out.FDB, program.FDB{MAC: n.VTEP.MAC, Dst: n.VTEP.Addr})
	}
	for _, p := range n.PodCIDRs {
		if !s.hasFamily(p) {
			continue
		}
		r := program.Route{Dst: p, Via: vtep(p).Addr(), Dev: Link}
		if tunnel {
			out.Neighs = append(out.Neighs, program.Neigh{Addr: r.Via, MAC: n.VTEP.MAC})
		}
		if hop, ok := s.neighbour(n, p); ok {
			r.Via, r.Dev, r.DevIndex = hop, s.Underlay.Link, s.Underlay.Index
		}
		if n.MTU < s.MTU {
			r.MTU = n.MTU // senders here are told, not those behind a smaller underlay
		}
		out.Routes = append(out.Routes, r)
	}
}

// Compile is the union of all fragments: the full program, against which
// anything incremental is measured.
func Compile(s Self, peers []cluster.Node) program.Net {
	n := Local(s)
	n.Grow(len(peers), len(s.PodCIDRs))
	for _, p := range peers {
		s.reach(p, &n)
	}
	return n
}

// vtep is a VTEP's inner address: the network address of its range, which no
// pod gets. In IPv6 it is also the range's subnet-router anycast address
// (RFC 4291, section 2.6.1), but Linux joins that group only for addresses
// with a prefix length below 127 on a forwarding node, and Poplin gives the
// full length everywhere, so no other device ever answers for it.
func vtep(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Addr(), p.Addr().BitLen())
}

// neighbour is the address of n to which packets for its range p may go as
// they are: both nodes offer it, and are in one network.
func (s Self) neighbour(n cluster.Node, p netip.Prefix) (netip.Addr, bool) {
	for _, own := range s.Direct {
		for _, other := range n.Direct {
			if sameFamily(own, p) && own.Masked() == other.Masked() && own.Addr() != other.Addr() {
				return other.Addr(), true
			}
		}
	}
	return netip.Addr{}, false
}

// Inner are addresses on the two overlay devices between which a packet takes
// the tunnel, if pods' packets for n do.
func (s Self) Inner(n cluster.Node) (own, its netip.Addr, ok bool) {
	return s.ends(n, func(p netip.Prefix) bool { _, direct := s.neighbour(n, p); return !direct })
}

// Ends are addresses on the two overlay devices between which a packet goes
// where pods' packets for n go, through the tunnel or not.
func (s Self) Ends(n cluster.Node) (own, its netip.Addr, ok bool) {
	return s.ends(n, func(netip.Prefix) bool { return true })
}

func (s Self) ends(n cluster.Node, fits func(netip.Prefix) bool) (own, its netip.Addr, ok bool) {
	if s.NoTunnel || !n.VTEP.Tunnel() {
		return own, its, false
	}
	for _, p := range n.PodCIDRs {
		for _, o := range s.PodCIDRs {
			if sameFamily(o, p) && fits(p) {
				return vtep(o).Addr(), vtep(p).Addr(), true
			}
		}
	}
	return own, its, false
}

func (s Self) hasFamily(p netip.Prefix) bool {
	for _, own := range s.PodCIDRs {
		if sameFamily(own, p) {
			return true
		}
	}
	return false
}

func sameFamily(a, b netip.Prefix) bool { return a.Addr().Is4() == b.Addr().Is4() }
