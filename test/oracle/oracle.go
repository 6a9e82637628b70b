// Package oracle answers for Services from the objects alone: what should
// happen to one packet on one node. Inputs are all Services and EndpointSlices
// and the packet; the output is an answer. It follows the API's documentation
// question by question, slowly, and refuses to share a line with the compiler
// it judges.
package oracle

import (
	"net/netip"
	"slices"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
)

// World is everything there is.
type World struct {
	Services []service.Service
	Slices   []service.Slice

	NodeName, Zone            string
	NodeAddresses             []netip.Addr // of this node
	NodePortAddresses         []netip.Addr
	AllNodeAddresses          []netip.Addr
	ExternalRanges, Allocated []netip.Prefix // Allocated: the ServiceCIDRs
	OverlayPort               uint16
}

// Packet opens a connection on this node. It comes from one of its pods, from
// a process of the node itself, or from elsewhere.
type Packet struct {
	FromPod, FromNode bool
	Src, Dst          netip.Addr
	Proto             service.Protocol
	Port              uint16
}

// Answer is what should happen. Without endpoints, and without the refusal or
// the drop, the packet is none of a Service's.
type Answer struct {
	Refuse, Drop bool
	// To says for each possible endpoint whether it sees an address of the
	// node instead of the client's.
	To     map[netip.AddrPort]bool
	Sticky time.Duration
}

// way is one way into a Service.
type way struct {
	svc      service.Service
	port     service.Port
	external bool // not by a cluster address
	fenced   bool // a load balancer's address
}

// Ask answers for one packet.
func (w World) Ask(p Packet) Answer {
	ways := w.ways(p)
	if len(ways) == 0 {
		return w.unassigned(p)
	}
	// One address and port: the oldest Service has it, and within that one
	// the load balancer's address is the one with the fence.
	slices.SortStableFunc(ways, func(a, b way) int {
		if c := a.svc.Created.Compare(b.svc.Created); c != 0 {
			return c
		}
		return a.svc.Key.Compare(b.svc.Key)
	})
	first := ways[0]
	for _, o := range ways {
		if o.svc.Key == first.svc.Key && o.port.Name == first.port.Name && o.fenced && len(o.svc.SourceRanges) > 0 {
			first = o
		}
	}
	if first.fenced && !w.admits(first.svc, p) {
		return Answer{Drop: true}
	}
	return w.answer(first, p)
}

func (w World) ways(p Packet) []way {
	var found []way
	for _, s := range w.Services {
		if s.ProxyName != "" || s.Type == service.ExternalName || len(s.ClusterIPs) == 0 {
			continue
		}
		for _, port := range s.Ports {
			if port.Protocol != p.Proto || port.Port == 0 || !slices.Contains([]service.Protocol{6, 17, 132}, port.Protocol) {
				continue
			}
			overlay := p.Proto == service.UDP && p.Port == w.OverlayPort && slices.Contains(w.AllNodeAddresses, p.Dst)
			if port.NodePort != 0 && port.NodePort == p.Port && slices.Contains(w.NodePortAddresses, p.Dst) && sane(p.Dst) {
				found = append(found, way{s, port, true, false})
			}
			if port.Port != p.Port || !sane(p.Dst) || overlay {
				continue
			}
			if slices.Contains(s.ClusterIPs, p.Dst) {
				found = append(found, way{s, port, false, false})
			}
			if slices.Contains(s.ExternalIPs, p.Dst) && within(w.ExternalRanges, p.Dst) {
				found = append(found, way{s, port, true, false})
			}
			for _, in := range s.Ingress {
				if s.Type == service.LoadBalancer && in.Addr == p.Dst && !in.Proxy {
					found = append(found, way{s, port, true, true})
				}
			}
		}
	}
	return found
}

func (w World) unassigned(p Packet) Answer {
	if !slices.Contains([]service.Protocol{6, 17, 132}, p.Proto) {
		return Answer{Drop: within(w.Allocated, p.Dst)}
	}
	for _, s := range w.Services {
		if s.ProxyName != "" || s.Type == service.ExternalName {
			continue
		}
		servable := slices.ContainsFunc(s.Ports, func(o service.Port) bool {
			overlay := o.Protocol == service.UDP && o.Port == w.OverlayPort && slices.Contains(w.AllNodeAddresses, p.Dst)
			return o.Port != 0 && slices.Contains([]service.Protocol{6, 17, 132}, o.Protocol) && !overlay
		})
		if servable && sane(p.Dst) && slices.Contains(s.ClusterIPs, p.Dst) {
			return Answer{Refuse: true}
		}
	}
	return Answer{Drop: within(w.Allocated, p.Dst)}
}

// admits applies spec.loadBalancerSourceRanges.
func (w World) admits(s service.Service, p Packet) bool {
	asked, self := false, false
	for _, r := range s.SourceRanges {
		if r.IsValid() && r.Addr().Is4() != p.Dst.Is4() {
			continue
		}
		asked = true
		if !r.IsValid() {
			continue
		}
		if r.Bits() == 0 || r.Contains(p.Src) {
			return true
		}
		self = self || slices.ContainsFunc(w.NodeAddresses, r.Contains)
	}
	return !asked || self && p.Src == p.Dst
}

func (w World) answer(in way, p Packet) Answer {
	s := in.svc
	all := w.endpoints(in, p.Dst.Is4())
	ready := keep(all, func(e service.Endpoint) bool { return e.Ready })
	leaving := keep(all, func(e service.Endpoint) bool { return !e.Ready && e.Serving && e.Terminating })
	here := func(e service.Endpoint) bool { return e.Node == w.NodeName && e.Node != "" }

	local := in.external && s.ExternalLocal || !in.external && s.InternalLocal
	if in.external && s.ExternalLocal && (p.FromPod || p.FromNode) {
		local = false // as if the cluster's own address had been used
	}
	var use map[netip.AddrPort]service.Endpoint
	if local {
		if use = keep(ready, here); len(use) == 0 {
			use = keep(leaving, here)
		}
	} else if use = w.preferred(ready); len(use) == 0 {
		use = leaving
	}
	if len(use) == 0 {
		nowhere := len(ready)+len(leaving) == 0
		return Answer{Refuse: nowhere, Drop: !nowhere}
	}
	a := Answer{To: map[netip.AddrPort]bool{}, Sticky: s.Affinity}
	for at := range use {
		a.To[at] = w.hidden(in, p, at.Addr(), all)
	}
	return a
}

// hidden reports whether the endpoint sees the node instead of the client.
func (w World) hidden(in way, p Packet, to netip.Addr, all map[netip.AddrPort]service.Endpoint) bool {
	mine := false
	for at, e := range all {
		mine = mine || at.Addr() == to && e.Node == w.NodeName && e.Node != ""
	}
	switch {
	case slices.Contains(w.NodeAddresses, to):
		return false // a process of the node itself: the packet never leaves
	case p.FromNode && mine:
		return false // delivered on this node, the answer comes back here
	case mine && p.Src == to:
		return true // its own client: it must not answer itself directly
	case p.FromPod:
		return in.external && !in.svc.ExternalLocal
	case p.FromNode:
		return true
	}
	return !in.external || !in.svc.ExternalLocal
}

// preferred applies the hints: to this node, then to this zone. All ready
// endpoints must carry them.
func (w World) preferred(ready map[netip.AddrPort]service.Endpoint) map[netip.AddrPort]service.Endpoint {
	for _, kind := range []struct {
		here  string
		hints func(service.Endpoint) []string
	}{
		{w.NodeName, func(e service.Endpoint) []string { return e.ForNodes }},
		{w.Zone, func(e service.Endpoint) []string { return e.ForZones }},
	} {
		bare := keep(ready, func(e service.Endpoint) bool { return len(kind.hints(e)) == 0 })
		fit := keep(ready, func(e service.Endpoint) bool { return kind.here != "" && slices.Contains(kind.hints(e), kind.here) })
		if len(bare) == 0 && len(fit) > 0 {
			return fit
		}
	}
	return ready
}

// endpoints are those of a service port, one per address and port.
func (w World) endpoints(in way, v4 bool) map[netip.AddrPort]service.Endpoint {
	found := map[netip.AddrPort]service.Endpoint{}
	list := slices.Clone(w.Slices)
	slices.SortFunc(list, func(a, b service.Slice) int { return a.Key.Compare(b.Key) })
	for _, slice := range list {
		if slice.Namespace != in.svc.Namespace || slice.Service != in.svc.Name || slice.Family != map[bool]int{true: 4, false: 6}[v4] {
			continue
		}
		for _, port := range slice.Ports {
			if port.Name != in.port.Name || port.Protocol != in.port.Protocol || port.Port == 0 {
				continue
			}
			for _, e := range slice.Endpoints {
				overlay := port.Protocol == service.UDP && port.Port == w.OverlayPort && slices.Contains(w.AllNodeAddresses, e.Addr)
				if !sane(e.Addr) || e.Addr.Is4() != v4 || overlay {
					continue
				}
				at := netip.AddrPortFrom(e.Addr, port.Port)
				if old, twice := found[at]; !twice || prefer(e, old) {
					found[at] = e
				}
			}
		}
	}
	return found
}

// prefer: an endpoint that stays beats one that goes, then ready, then serving.
func prefer(a, b service.Endpoint) bool {
	score := func(e service.Endpoint) (n int) {
		for i, good := range []bool{e.Serving, e.Ready, !e.Terminating} {
			if good {
				n += 1 << i
			}
		}
		return n
	}
	return score(a) > score(b)
}

func keep(in map[netip.AddrPort]service.Endpoint, want func(service.Endpoint) bool) map[netip.AddrPort]service.Endpoint {
	out := map[netip.AddrPort]service.Endpoint{}
	for at, e := range in {
		if want(e) {
			out[at] = e
		}
	}
	return out
}

func within(ranges []netip.Prefix, a netip.Addr) bool {
	for _, r := range ranges {
		if r.Contains(a) {
			return true
		}
	}
	return false
}

// sane is an address a packet can have on its way between hosts.
func sane(a netip.Addr) bool {
	return a.IsGlobalUnicast() && !a.Is4In6() && a.Zone() == ""
}
