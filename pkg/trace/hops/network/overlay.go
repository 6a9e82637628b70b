package network

import (
	"fmt"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/trace"
	"poplin.dev/poplin/pkg/trace/way"
)

// Overlay: the node where the packet enters knows the way to the other one:
// a neighbour, a forwarding entry, and its own device.
func Overlay(c *way.Case) []way.Hop {
	if !c.Remote() || c.Pod == nil {
		return nil
	}
	h, f := c.At(way.Overlay, c.Enters, "way to node "+c.Node)
	if f != nil {
		tunnel(c, h, f, c.Node, c.Dst.Addr())
	}
	return []way.Hop{*h}
}

// tunnel compares what the kernel of h's node holds for another node with what
// it should.
func tunnel(c *way.Case, h *way.Hop, f *facts.Node, other string, dst netip.Addr) {
	desired := c.Desired[h.Node]
	if why := desired.Refused[other]; why != "" {
		h.Broken("kubectl get nodenetworks "+h.Node+" "+other+" -o yaml", "node %s is not part of node %s's network: %s", other, h.Node, why)
		return
	}
	for _, n := range []string{h.Node, other} {
		if _, published := c.Objects.Network(n); !published {
			h.Unknown("node %s has no NodeNetwork", n)
			return
		}
	}
	want, ok := way.Wanted(desired.Net, dst)
	if !ok || want.Dev != desired.Net.Link.Name || want.Dev == "" {
		return // direct, or no pod's address: the route says it all
	}
	if f.Network == nil {
		h.Unknown("%s", f.Missing["network"])
		return
	}
	cure := way.Restart(h.Node)
	if device(h, f, desired.Net.Link.Name, cure); h.Status != way.OK {
		return
	}
	for _, n := range desired.Net.Neighs {
		if n.Addr != want.Via {
			continue
		}
		i := slices.IndexFunc(f.Network.Neighs, func(k facts.Neigh) bool { return k.Addr == n.Addr && k.Dev == want.Dev })
		switch {
		case i < 0:
			h.Broken(cure, "no neighbour entry for %s on %s; it should have %s", n.Addr, want.Dev, n.MAC)
		case f.Network.Neighs[i].MAC != n.MAC.String():
			h.Broken(cure, "neighbour %s on %s has %s, and node %s has published %s", n.Addr, want.Dev, f.Network.Neighs[i].MAC, other, n.MAC)
		default:
			h.Saw("neighbour %s is %s", n.Addr, n.MAC)
		}
		for _, e := range desired.Net.FDB {
			if e.MAC == n.MAC {
				forwarding(h, f, e.MAC.String(), e.Dst, cure)
			}
		}
	}
}

func forwarding(h *way.Hop, f *facts.Node, mac string, want netip.Addr, cure string) {
	i := slices.IndexFunc(f.Network.FDB, func(k facts.Forward) bool { return k.MAC == mac })
	switch {
	case i < 0:
		h.Broken(cure, "no forwarding entry for %s; it should lead to %s", mac, want)
	case f.Network.FDB[i].Dst != want:
		h.Broken(cure, "the forwarding entry of %s leads to %s, and should to %s", mac, f.Network.FDB[i].Dst, want)
	default:
		h.Saw("%s is behind %s", mac, want)
	}
}

// device: there is such a link, and it is up.
func device(h *way.Hop, f *facts.Node, name, cure string) {
	switch l, ok := f.Network.Link(name); {
	case !ok:
		h.Broken(cure, "there is no device %s", name)
	case !l.Up:
		h.Broken(fmt.Sprintf("ip link set %s up # on node %s", name, h.Node), "device %s is down", name)
	}
}

// Decapsulation: the other node takes packets out of the overlay.
func Decapsulation(c *way.Case) []way.Hop {
	if !c.Tunnels() {
		return nil
	}
	h, f := c.At(way.Decapsulation, c.Node, c.Desired[c.Node].Net.Link.Name)
	if f != nil {
		takesOut(c, h, f)
	}
	return []way.Hop{*h}
}

func takesOut(c *way.Case, h *way.Hop, f *facts.Node) {
	if f.Network == nil {
		h.Unknown("%s", f.Missing["network"])
		return
	}
	want, cure := c.Desired[h.Node].Net.Link, way.Restart(h.Node)
	if device(h, f, want.Name, cure); h.Status != way.OK {
		return
	}
	l, _ := f.Network.Link(want.Name)
	h.Saw("%s has %s, MTU %d", l.Name, l.MAC, l.MTU)
	switch v := l.VXLAN; {
	case v == nil:
		h.Broken(cure, "device %s is no VXLAN device", l.Name)
	case v.VNI != want.VNI || v.Port != want.Port:
		h.Broken(cure, "%s has VNI %d and port %d, and should have %d and %d", l.Name, v.VNI, v.Port, want.VNI, want.Port)
	case v.Local.IsValid() && v.Local != want.Local:
		h.Broken(cure, "%s sends and receives at %s, and node %s has published %s", l.Name, v.Local, h.Node, want.Local)
	case l.MAC != want.MAC.String():
		h.Broken(cure, "%s has %s, and node %s has published %s", l.Name, l.MAC, h.Node, want.MAC)
	}
}

// Return: the answer finds its way to the node where the packet entered.
func Return(c *way.Case) []way.Hop {
	if !c.Remote() {
		return nil
	}
	h, f := c.At(way.Return, c.Node, "way back to node "+c.Enters)
	if f == nil {
		return []way.Hop{*h}
	}
	if c.Pod != nil && c.Origin == trace.FromPod {
		routed(c, h, f, c.Dst.Addr(), c.From)
		tunnel(c, h, f, c.Enters, c.From)
	} else if c.Pod != nil {
		tunnel(c, h, f, c.Enters, c.Seen())
	}
	if back, known := c.Facts[c.Enters]; known && c.Tunnels() {
		guardedBack(c, h, &back)
	}
	return []way.Hop{*h}
}

// guardedBack: the node where the packet entered lets overlay packets in again.
func guardedBack(c *way.Case, h *way.Hop, f *facts.Node) {
	g := &way.Hop{Node: c.Enters, Status: way.OK}
	guarded(c, g, f, c.Node)
	if g.Status == way.Broken {
		h.Broken(g.Cure, "%s", g.Cause)
	}
	d := &way.Hop{Node: c.Enters, Status: way.OK}
	takesOut(c, d, f)
	if d.Status == way.Broken {
		h.Broken(d.Cure, "%s", d.Cause)
	}
}
