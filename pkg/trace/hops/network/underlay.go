package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/trace/way"
)

// Underlay: packets get from node to node. Each node has sent some to the
// other, to a port where nobody listens; that it says so shows both ways.
func Underlay(c *way.Case) (hops []way.Hop) {
	if !c.Remote() {
		return nil
	}
	for _, ends := range [][2]string{{c.Enters, c.Node}, {c.Node, c.Enters}} {
		h, f := c.At(way.Underlay, ends[0], "network to node "+ends[1])
		if f != nil {
			between(c, h, f, ends[1])
		}
		hops = append(hops, *h)
	}
	return hops
}

func between(c *way.Case, h *way.Hop, f *facts.Node, other string) {
	own, _ := c.Objects.Network(h.Node)
	peer, _ := c.Objects.Network(other)
	if f.Network == nil {
		h.Unknown("%s", f.Missing["network"])
		return
	}
	l, held := f.Network.Holder(own.VTEP.Addr)
	switch {
	case !held && own.VTEP.Addr.IsValid():
		h.Broken("ip address # on node "+h.Node, "no device of node %s holds its address %s", h.Node, own.VTEP.Addr)
		return
	case held && !l.Up:
		h.Broken(fmt.Sprintf("ip link set %s up # on node %s", l.Name, h.Node), "device %s, which carries the overlay, is down", l.Name)
		return
	case held && !l.Running:
		h.Broken(fmt.Sprintf("ip link show %s # on node %s: is the cable there?", l.Name, h.Node), "device %s, which carries the overlay, has no carrier", l.Name)
		return
	}
	p, asked := way.PeerOf(f, other)
	switch {
	case !asked:
		h.Unknown("node %s was not asked to send anything to node %s", h.Node, other)
	case p.Small:
		h.Saw("node %s answers through the overlay", other)
	case !p.Inner.IsValid() && p.Below:
		h.Saw("node %s answers at %s", other, p.Outer)
	case filtered(c, h.Node, other, p):
		h.Unknown("another program's rules on node %s keep it from answering", other)
	case p.Below:
		h.Broken(fmt.Sprintf("tcpdump -ni any udp port %d # on both nodes", c.Desired[h.Node].Net.Link.Port),
			"node %s answers at %s, and not through the overlay: UDP port %d does not pass from %s to it, or not back",
			other, p.Outer, c.Desired[h.Node].Net.Link.Port, h.Node)
	default:
		text := ""
		if i := slices.IndexFunc(f.Network.Neighs, func(n facts.Neigh) bool { return n.Addr == p.Outer }); i >= 0 {
			text = "; its neighbour entry is " + f.Network.Neighs[i].State
		}
		h.Broken("ping "+peer.VTEP.Addr.String()+" # on node "+h.Node, "node %s does not answer node %s at %s%s", other, h.Node, p.Outer, text)
	}
}

// filtered reports whether a firewall on the other node, or here, would drop
// the packets that were sent.
func filtered(c *way.Case, node, other string, p facts.Peer) bool {
	f, known := c.Facts[other]
	if !known || f.Rules == nil {
		return !known && c.Absent[other] == "" // nothing is known of it
	}
	to, src := p.Inner, p.From
	if !to.IsValid() {
		to = p.Outer
	}
	packet := facts.Packet{Flow: facts.Flow{Src: src, To: netip.AddrPortFrom(to, 33434), Proto: service.TCP}}
	for _, base := range f.Rules.Foreign {
		if base.Hook == "input" || base.Hook == "prerouting" {
			if fate, _ := facts.Judge(f.Rules.Foreign, base, packet); fate != facts.Passes {
				return true
			}
		}
	}
	return false
}

// MTU: the largest packet of a pod passes.
func MTU(c *way.Case) (hops []way.Hop) {
	if !c.Remote() {
		return nil
	}
	for _, ends := range [][2]string{{c.Enters, c.Node}, {c.Node, c.Enters}} {
		h, f := c.At(way.MTU, ends[0], "largest packet to node "+ends[1])
		if f != nil {
			large(c, h, f, ends[1])
		}
		hops = append(hops, *h)
	}
	return hops
}

func large(c *way.Case, h *way.Hop, f *facts.Node, other string) {
	own, published := c.Objects.Network(h.Node)
	if f.Network == nil || !published {
		h.Unknown("%s", f.Missing["network"])
		return
	}
	fits(c, h, f, own)
	p, asked := way.PeerOf(f, other)
	switch {
	case !asked || !p.Inner.IsValid():
	case p.Large:
		h.Saw("a packet of %d bytes passes to node %s and is answered", cmp.Or(p.Size, p.MTU), other)
	case !p.Small:
		h.Unknown("node %s does not answer at all", other)
	case filtered(c, h.Node, other, p):
		h.Unknown("another program's rules on node %s keep it from answering", other)
	default:
		h.Broken(fmt.Sprintf("kubectl -n poplin-system edit configmap poplin-config # overlay.mtu: %d, or mend the network between the nodes", max(p.Size, 1280)),
			"a packet of %d bytes does not pass from node %s to node %s, and small ones do%s", p.MTU, h.Node, other, passed(p))
	}
}

func passed(p facts.Peer) string {
	if p.Size == 0 {
		return ""
	}
	return fmt.Sprintf(" (%d bytes do)", p.Size)
}

// fits compares the devices' sizes.
func fits(c *way.Case, h *way.Hop, f *facts.Node, own cluster.Node) {
	vx, ok := f.Network.Link(c.Desired[h.Node].Net.Link.Name)
	if !ok {
		return
	}
	h.Saw("%s has MTU %d, node %s has published %d", vx.Name, vx.MTU, h.Node, own.MTU)
	if vx.MTU < own.MTU {
		h.Broken(way.Restart(h.Node), "%s has MTU %d, and pods send packets of %d bytes", vx.Name, vx.MTU, own.MTU)
	}
	if under, held := f.Network.Holder(own.VTEP.Addr); held && vx.VXLAN != nil {
		overhead := 50
		if own.VTEP.Addr.Is6() {
			overhead = 70
		}
		if under.MTU < vx.MTU+overhead {
			h.Broken(fmt.Sprintf("ip link set %s mtu %d # on node %s", under.Name, vx.MTU+overhead, h.Node),
				"%s has MTU %d, and encapsulated packets have up to %d bytes", under.Name, under.MTU, vx.MTU+overhead)
		}
	}
}
