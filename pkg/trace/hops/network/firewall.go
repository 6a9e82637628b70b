package network

import (
	"fmt"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/trace"
	"poplin.dev/poplin/pkg/trace/way"
)

// look is one packet at one hook.
type look struct {
	hook   string
	packet facts.Packet
}

// FirewallOut: no other program's rule drops it on the node where it enters.
func FirewallOut(c *way.Case) []way.Hop {
	h, f := c.At(way.Firewall, c.Enters, "other programs' rules")
	if f == nil {
		return []way.Hop{*h}
	}
	in, out := devices(c, f, c.From, c.Dst.Addr())
	first, second := packet(c, c.Front), packet(c, c.Dst)
	first.In, second.In, second.Out = in, in, out
	looks := []look{{facts.Ingress, first}, {"prerouting", first}, {"forward", second}, {"postrouting", second}, {facts.Egress, second}}
	if c.Origin == trace.FromNode {
		first.In, second.In, first.Out = "", "", out
		looks = []look{{"output", first}, {"postrouting", second}, {facts.Egress, second}}
	}
	if c.Node == c.Enters && c.Pod == nil {
		looks = []look{{facts.Ingress, first}, {"prerouting", first}, {"input", second}}
	}
	if c.Tunnels() {
		looks = append(looks, outer(c, f, "output", c.Enters, c.Node)...)
	}
	search(c, h, f, looks)
	if c.Origin == trace.FromPod {
		inPod(h, f, c.From, []look{{"output", first}, {"postrouting", first}, {facts.Egress, first}})
	}
	if !c.Remote() {
		inPod(h, f, c.Dst.Addr(), received(second))
	}
	return []way.Hop{*h}
}

// inPod asks the chains in a pod's own namespace.
func inPod(h *way.Hop, f *facts.Node, own netip.Addr, looks []look) {
	p, found := way.PodOf(f, own)
	if !found {
		return
	}
	for _, l := range looks {
		l.packet.In, l.packet.Out = "", p.Interface
		if l.hook != "output" && l.hook != "postrouting" && l.hook != facts.Egress {
			l.packet.In, l.packet.Out = p.Interface, ""
		}
		for _, base := range p.Chains {
			if base.Hook != l.hook {
				continue
			}
			cure := "nsenter --net=... nft -a list chain " + base.String() + " # of pod " + p.Name + ", on node " + h.Node
			switch fate, why := facts.Judge(p.Chains, base, l.packet); fate {
			case facts.Dropped:
				h.Broken(cure, "%s, inside of pod %s, drops it", why, p.Name)
			case facts.Perhaps:
				h.Suspect(cure, "%s, inside of pod %s, may drop it", why, p.Name)
			}
		}
	}
}

// FirewallIn: none on the node where it ends, either.
func FirewallIn(c *way.Case) []way.Hop {
	if !c.Remote() {
		return nil
	}
	h, f := c.At(way.Firewall, c.Node, "other programs' rules")
	if f == nil {
		return []way.Hop{*h}
	}
	p := packet(c, c.Dst)
	p.Src = c.Seen()
	p.In, p.Out = devices(c, f, c.From, c.Dst.Addr())
	looks := []look{{facts.Ingress, p}, {"prerouting", p}, {"forward", p}, {"postrouting", p}, {facts.Egress, p}}
	if c.Pod == nil {
		looks = received(p)
	}
	if c.Tunnels() {
		looks = append(looks, outer(c, f, "input", c.Enters, c.Node)...)
	}
	search(c, h, f, looks)
	inPod(h, f, c.Dst.Addr(), received(p))
	return []way.Hop{*h}
}

func packet(c *way.Case, to netip.AddrPort) facts.Packet {
	return facts.Packet{Flow: facts.Flow{Src: c.Source(), To: to, Proto: c.Proto}}
}

// devices are those by which the packet comes in and goes out.
func devices(c *way.Case, f *facts.Node, src, dst netip.Addr) (in, out string) {
	if f.Network == nil {
		return "", ""
	}
	d, _ := f.Network.Decision(src, dst)
	return d.In, d.Dev
}

// outer is the packet around the packet.
func outer(c *way.Case, f *facts.Node, hook, from, to string) []look {
	a, okA := c.Objects.Network(from)
	b, okB := c.Objects.Network(to)
	if !okA || !okB || f.Network == nil {
		return nil
	}
	p := facts.Packet{Flow: facts.Flow{
		Src: a.VTEP.Addr, To: netip.AddrPortFrom(b.VTEP.Addr, c.Desired[from].Net.Link.Port), Proto: service.UDP,
	}}
	l, _ := f.Network.Holder(map[string]netip.Addr{"output": a.VTEP.Addr, "input": b.VTEP.Addr}[hook])
	if hook == "output" {
		p.Out = l.Name
		return []look{{"output", p}, {"postrouting", p}, {facts.Egress, p}}
	}
	p.In = l.Name
	return received(p)
}

// received is a packet that ends where it is.
func received(p facts.Packet) []look {
	return []look{{facts.Ingress, p}, {"prerouting", p}, {"input", p}}
}

// search asks each chain.
func search(c *way.Case, h *way.Hop, f *facts.Node, looks []look) {
	if f.Rules == nil {
		h.Unknown("%s", f.Missing["rules"])
		return
	}
	if why := f.Missing["rules.foreign"]; why != "" {
		h.Unknown("%s", why)
	}
	seen := 0
	for _, l := range looks {
		for _, base := range f.Rules.Foreign {
			if base.Hook != l.hook {
				continue
			}
			seen++
			switch fate, why := facts.Judge(f.Rules.Foreign, base, l.packet); fate {
			case facts.Dropped:
				h.Broken("nft -a list chain "+base.String()+" # on node "+h.Node, "%s, of another program, drops it", why)
			case facts.Perhaps:
				h.Suspect("nft -a list chain "+base.String()+" # on node "+h.Node, "%s, of another program, may drop it", why)
			}
		}
	}
	h.Saw("%d chains of other programs see it", seen)
}

// Guard: the guards of the node that receives know the one that sends.
func Guard(c *way.Case) (hops []way.Hop) {
	if c.Src.Pod != nil && c.Origin == trace.FromPod {
		h, f := c.At(way.Guard, c.Enters, "guards of the overlay")
		if f != nil {
			guarded(c, h, f, "")
			spoofs(c, h, f)
		}
		hops = append(hops, *h)
	}
	if c.Tunnels() {
		h, f := c.At(way.Guard, c.Node, "guards of the overlay")
		if f != nil {
			guarded(c, h, f, c.Enters)
		}
		hops = append(hops, *h)
	}
	return hops
}

// spoofs: a pod that sends under an address which is not its own is not heard.
func spoofs(c *way.Case, h *way.Hop, f *facts.Node) {
	p, found := way.PodOf(f, c.From)
	if !found || p.Inside == nil {
		return
	}
	for _, r := range p.Inside.Routes {
		if r.Dst.Contains(c.Front.Addr()) && r.Src.IsValid() && !slices.Contains(p.Addresses, r.Src) {
			h.Broken(fmt.Sprintf("kubectl -n %s delete pod %s", c.Src.Pod.Namespace, c.Src.Pod.Name),
				"the pod sends under %s, which is not its address: its node drops that", r.Src)
		}
	}
}

// guarded looks at one node's guards; other is who sends overlay packets to it.
func guarded(c *way.Case, h *way.Hop, f *facts.Node, other string) {
	if f.Rules == nil || f.Missing["rules.overlay"] != "" {
		h.Unknown("%s", f.Missing["rules.overlay"])
		return
	}
	if w := f.Rules.Overlay.Wrong; len(w) > 0 {
		h.Suspect(way.Restart(h.Node), "nftables table inet poplin is not as it should be: %s", w[0])
		return
	}
	if n, known := c.Objects.Network(other); known {
		has := func(a netip.Addr, sets ...string) bool {
			return slices.ContainsFunc(sets, func(s string) bool {
				return slices.ContainsFunc(f.Rules.Overlay.Sets[s], func(p netip.Prefix) bool { return p.Contains(a) })
			})
		}
		if own, published := c.Objects.Network(h.Node); published && !has(own.VTEP.Addr, "guard-self4", "guard-self6") {
			h.Broken(way.Restart(h.Node), "the guards of node %s do not know its own address %s: they drop overlay packets to it", h.Node, own.VTEP.Addr)
		}
		if !has(n.VTEP.Addr, "guard-peers4", "guard-peers6") {
			h.Broken(way.Restart(h.Node), "the guards of node %s do not know node %s (%s): they drop its overlay packets", h.Node, other, n.VTEP.Addr)
		}
		h.Saw("%s is a peer", n.VTEP.Addr)
	}
	for _, name := range []string{"guard-forged", "guard-spoofed"} {
		if v := f.Rules.Overlay.Counters[name]; v > 0 {
			h.Saw("%s has dropped %d packets since the table was made", name, v)
		}
	}
}
