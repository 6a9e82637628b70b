// Package pod looks into pods: link, address, routes, and who listens. Input is
// one case; outputs are hops. It refuses to say OK of what nobody could look at.
package pod

import (
	"fmt"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/trace"
	"poplin.dev/poplin/pkg/trace/way"
)

// Sender: a pod can send.
func Sender(c *way.Case) []way.Hop {
	if c.Src.Pod == nil || c.Origin != trace.FromPod {
		return nil
	}
	return attached(c, c.Src.Pod, c.From, c.Front.Addr())
}

// Receiver: a pod can be reached, and can answer.
func Receiver(c *way.Case) []way.Hop {
	if c.Pod == nil {
		return nil
	}
	return attached(c, c.Pod, c.Dst.Addr(), c.Source())
}

// attached looks at a pod's link, address and routes.
func attached(c *way.Case, pod *object.Pod, own, other netip.Addr) []way.Hop {
	node, about := pod.Spec.NodeName, "pod "+pod.String()
	link, f := c.At(way.PodLink, node, about)
	address, _ := c.At(way.PodAddress, node, about)
	route, _ := c.At(way.PodRoute, node, about)
	if f == nil {
		return []way.Hop{*link, *address, *route}
	}
	cure := fmt.Sprintf("kubectl -n %s delete pod %s", pod.Namespace, pod.Name)
	p, found := way.PodOf(f, own)
	if !found {
		address.Broken(cure, "node %s has reserved %s for no pod that its runtime knows", node, own)
		return []way.Hop{*address}
	}
	if f.Network != nil {
		switch l, ok := f.Network.Link(p.HostLink); {
		case !ok:
			link.Broken(cure, "node %s has no device %s, the host's end of the pod's link", node, p.HostLink)
		case !l.Up || !l.Running:
			link.Broken(fmt.Sprintf("ip link set %s up # on node %s", p.HostLink, node), "%s, the host's end of the pod's link, is down", p.HostLink)
		case l.Queue == "blackhole":
			link.Broken(fmt.Sprintf("tc qdisc del dev %s root # on node %s", p.HostLink, node), "the queue of %s loses all packets to the pod", p.HostLink)
		default:
			link.Saw("%s is up, MTU %d", l.Name, l.MTU)
		}
	}
	if p.Inside == nil {
		for _, h := range []*way.Hop{link, address, route} {
			h.Unknown("the inside of the pod: %s", p.Hidden)
		}
		return []way.Hop{*link, *address, *route}
	}
	inside(link, address, p, own, cure)
	known(link, f, p, own)
	insideRoute(c, route, f, p, own, other, cure)
	size, _ := c.At(way.MTU, node, about)
	ends(c, size, f, p, cure)
	return []way.Hop{*link, *address, *route, *size}
}

// ends: neither end of the link is narrower than the other and than the pod
// network's packets. What comes too large to an end is dropped without a word.
func ends(c *way.Case, h *way.Hop, f *facts.Node, p facts.Pod, cure string) {
	published, known := c.Objects.Network(h.Node)
	in, found := p.Inside.Link(p.Interface)
	if f.Network == nil || !known || !found {
		return // another hop says so
	}
	out, found := f.Network.Link(p.HostLink)
	if !found {
		return
	}
	h.Saw("MTU %d in the pod, %d at the host's end", in.MTU, out.MTU)
	if narrow := min(in.MTU, out.MTU); in.MTU != out.MTU && narrow < published.MTU {
		h.Broken(cure, "the pod's link has MTU %d in the pod and %d at the host's end: larger packets than %d are dropped", in.MTU, out.MTU, narrow)
	}
}

func inside(link, address *way.Hop, p facts.Pod, own netip.Addr, cure string) {
	switch l, ok := p.Inside.Link(p.Interface); {
	case !ok:
		link.Broken(cure, "the pod has no device %s", p.Interface)
	case !l.Up:
		link.Broken(cure, "device %s of the pod is down", p.Interface)
	}
	switch l, ok := p.Inside.Holder(own); {
	case !ok:
		address.Broken(cure, "the pod does not hold its address %s", own)
	case l.Name != p.Interface:
		address.Broken(cure, "the pod holds %s on %s, and not on %s", own, l.Name, p.Interface)
	default:
		address.Saw("%s on %s", own, l.Name)
	}
}

// known: the node knows the pod's end of the link without asking, as nobody
// would answer.
func known(h *way.Hop, f *facts.Node, p facts.Pod, own netip.Addr) {
	l, ok := p.Inside.Link(p.Interface)
	if !ok || f.Network == nil || h.Status != way.OK {
		return
	}
	i := slices.IndexFunc(f.Network.Neighs, func(n facts.Neigh) bool { return n.Addr == own && n.Dev == p.HostLink && n.MAC != "" })
	cure := fmt.Sprintf("ip neigh replace %s lladdr %s dev %s nud permanent # on node %s", own, l.MAC, p.HostLink, h.Node)
	switch {
	case i < 0:
		h.Broken(cure, "node %s has no neighbour entry for %s on %s", h.Node, own, p.HostLink)
	case f.Network.Neighs[i].MAC != l.MAC:
		h.Broken(cure, "node %s sends to %s at %s, and the pod has %s", h.Node, own, f.Network.Neighs[i].MAC, l.MAC)
	}
}

// insideRoute: the pod sends answers to its node, and knows its node's address.
func insideRoute(c *way.Case, h *way.Hop, f *facts.Node, p facts.Pod, own, other netip.Addr, cure string) {
	i := slices.IndexFunc(p.Inside.Routes, func(r facts.Route) bool { return r.Dst.Bits() == 0 && r.Dst.Addr().Is4() == own.Is4() })
	if d, asked := p.Inside.Decision(own, other); asked && d.Error != "" {
		h.Broken(cure, "the pod has no route to %s: %s", other, d.Error)
		return
	} else if asked && !d.Local && d.Dev != p.Interface {
		h.Broken(cure, "the pod sends packets to %s by %s, and not by %s", other, d.Dev, p.Interface)
		return
	}
	if i < 0 {
		h.Broken(cure, "the pod has no default route of this family")
		return
	}
	r := p.Inside.Routes[i]
	h.Saw("default by %s via %s", r.Dev, r.Via)
	if d, asked := p.Inside.Decision(own, other); asked && d.Dev == r.Dev && !d.Local && !d.Via.IsValid() && c.NodeOf(other) == "" {
		h.Broken(cure, "the pod takes %s for a neighbour on %s, where only its node answers: its gateway is %s", other, d.Dev, r.Via)
		return
	}
	n := slices.IndexFunc(p.Inside.Neighs, func(n facts.Neigh) bool { return n.Addr == r.Via && n.Dev == r.Dev && n.MAC != "" })
	host, _ := f.Network.Link(p.HostLink)
	switch {
	case n < 0:
		h.Broken(cure, "the pod has no neighbour entry for its gateway %s", r.Via)
	case host.MAC != "" && p.Inside.Neighs[n].MAC != host.MAC:
		h.Broken(cure, "the pod sends to %s as its gateway, and its node has %s", p.Inside.Neighs[n].MAC, host.MAC)
	}
}

// Socket: somebody listens, and accepts.
func Socket(c *way.Case) []way.Hop {
	if c.Node == "" {
		return nil
	}
	about := c.Dst.String() + "/" + c.Proto.String()
	h, f := c.At(way.Socket, c.Node, about)
	if f == nil {
		return []way.Hop{*h}
	}
	sockets, why := f.Network, f.Missing["network"]
	cure := "ss -lnp # on node " + c.Node
	if c.Pod != nil {
		p, _ := way.PodOf(f, c.Dst.Addr())
		sockets, why = p.Inside, "the inside of the pod: "+p.Hidden
		cure = fmt.Sprintf("kubectl -n %s logs %s # and have it serve port %d at all addresses", c.Pod.Namespace, c.Pod.Name, c.Dst.Port())
	}
	if sockets == nil {
		h.Unknown("%s", why)
		return []way.Hop{*h}
	}
	listens(h, sockets.Sockets, c.Dst, c.Proto, cure)
	return []way.Hop{*h}
}

func listens(h *way.Hop, sockets []facts.Socket, at netip.AddrPort, proto service.Protocol, cure string) {
	if proto == service.SCTP {
		h.Unknown("the kernel does not list SCTP sockets")
		return
	}
	elsewhere := netip.AddrPort{}
	for _, s := range sockets {
		if s.Proto != proto || s.At.Port() != at.Port() {
			continue
		}
		a := s.At.Addr()
		if a == at.Addr() || a.IsUnspecified() && (a.Is6() || at.Addr().Is4()) {
			h.Saw("somebody listens at %s", s.At)
			if s.Waiting > 0 {
				h.Broken(cure, "the process that listens at %s does not accept: %d connections wait", s.At, s.Waiting)
			}
			return
		}
		elsewhere = s.At
	}
	if elsewhere.IsValid() {
		h.Broken(cure, "the process listens at %s only, and not at %s", elsewhere, at)
		return
	}
	h.Broken(cure, "nobody listens at %s port %d", proto, at.Port())
}
