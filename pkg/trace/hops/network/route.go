// Package network looks at the kernels of nodes: what they hold is compared with
// what they should hold, and the packet is followed through it. Input is one
// case; outputs are hops. It refuses to look into pods.
package network

import (
	"fmt"
	"net/netip"
	"strconv"

	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/trace/way"
)

// Sysctls: both nodes forward packets of this family.
func Sysctls(c *way.Case) (hops []way.Hop) {
	for _, node := range way.Involved([]way.Case{*c}) {
		h, f := c.At(way.Sysctl, node, "forwarding and reverse path check")
		if f != nil {
			forwards(c, h, f)
		}
		hops = append(hops, *h)
	}
	return hops
}

func forwards(c *way.Case, h *way.Hop, f *facts.Node) {
	if f.Network == nil {
		h.Unknown("%s", f.Missing["network"])
		return
	}
	key := "ipv4/ip_forward"
	if c.Dst.Addr().Is6() {
		key = "ipv6/conf/all/forwarding"
	}
	value := f.Network.Sysctls[key]
	h.Saw("net/%s = %s", key, value)
	if value != "1" {
		h.Broken(fmt.Sprintf("sysctl -w net.%s=1 # on node %s", dotted(key), h.Node), "net/%s is %q: the node does not forward packets of pods", key, value)
		return
	}
	if l, _ := f.Network.Link(c.Desired[h.Node].Net.Link.Name); c.Tunnels() && c.Dst.Addr().Is6() && l.Settings["ipv6/disable_ipv6"] == 1 {
		h.Broken(fmt.Sprintf("sysctl -w net.ipv6.conf.%s.disable_ipv6=0 # on node %s", l.Name, h.Node), "net/ipv6/conf/%s/disable_ipv6 is 1: the overlay device takes no IPv6", l.Name)
	}
	for _, d := range f.Network.Decisions {
		if d.In == "" || !concerns(c, d) {
			continue
		}
		l, _ := f.Network.Link(d.In)
		if v, known := l.Settings["ipv4/forwarding"]; known && v != 1 && c.Dst.Addr().Is4() && !d.Local {
			h.Broken(fmt.Sprintf("sysctl -w net.ipv4.conf.%s.forwarding=1 # on node %s", d.In, h.Node), "net/ipv4/conf/%s/forwarding is %d: packets that come in there are not forwarded", d.In, v)
		}
		if refused(f, d, l) {
			h.Broken(fmt.Sprintf("sysctl -w net.ipv4.conf.%s.rp_filter=2 net.ipv4.conf.all.rp_filter=0 # on node %s", d.In, h.Node),
				"rp_filter of %s refuses packets from %s (device %d, all %s)", d.In, d.Src, l.Settings["ipv4/rp_filter"], f.Network.Sysctls["ipv4/conf/all/rp_filter"])
		}
	}
}

// refused reports whether the kernel does not take the source address, which is
// not routed to where the packet came in. It says EXDEV, or EINVAL (seen with Linux
// 6.18), as it does of addresses that nobody may have.
func refused(f *facts.Node, d facts.Decision, in facts.Link) bool {
	all, _ := strconv.Atoi(f.Network.Sysctls["ipv4/conf/all/rp_filter"]) // the larger one holds
	strict := max(all, in.Settings["ipv4/rp_filter"]) == 1
	return d.Error == "invalid cross-device link" || d.Error == "invalid argument" && d.Src.Is4() && strict
}

func concerns(c *way.Case, d facts.Decision) bool {
	return d.Src == c.From && (d.Dst == c.Dst.Addr() || d.Dst == c.Front.Addr()) || d.Src == c.Dst.Addr() && d.Dst == c.From
}

func dotted(key string) string {
	b := []byte(key)
	for i := range b {
		if b[i] == '/' {
			b[i] = '.'
		}
	}
	return string(b)
}

// Route: the kernels send the packet where it should go.
func Route(c *way.Case) (hops []way.Hop) {
	for _, node := range way.Involved([]way.Case{*c}) {
		h, f := c.At(way.Route, node, "route to "+c.Dst.Addr().String())
		if f != nil {
			routed(c, h, f, c.From, c.Dst.Addr())
		}
		hops = append(hops, *h)
	}
	return hops
}

// routed holds the kernel's decision about one direction against the program.
func routed(c *way.Case, h *way.Hop, f *facts.Node, src, dst netip.Addr) {
	if f.Network == nil {
		h.Unknown("%s", f.Missing["network"])
		return
	}
	d, asked := f.Network.Decision(src, dst)
	if !asked {
		h.Unknown("the kernel was not asked")
		return
	}
	if d.Error == "" {
		h.Saw("%s", decisionText(d))
	} else {
		h.Saw("%s to %s: %s", d.Src, d.Dst, d.Error)
	}
	want, ours := way.Wanted(c.Desired[h.Node].Net, dst)
	cure := way.Restart(h.Node)
	switch {
	case ours && want.Dev != "":
		switch l, found := f.Network.Link(want.Dev); {
		case !found || !l.Up:
			h.Saw("%s is down, and with it goes the route", want.Dev)
		case d.Error != "":
			h.Broken(cure, "the node has no way to %s: %s; it should go by %s", dst, d.Error, want.Dev)
		case d.Dev != want.Dev || d.Via != want.Via:
			h.Broken(fmt.Sprintf("ip route get %s # on node %s; then remove the route or rule that leads there", dst, h.Node),
				"packets to %s go by %s, and should go by %s via %s", dst, decisionText(d), want.Dev, want.Via)
		}
	case ours: // a pod of this node: its own route is more special
		toPod(c, h, f, d, dst)
	case d.Error != "":
		h.Broken("ip route # on node "+h.Node, "the node has no way to %s: %s", dst, d.Error)
	}
}

// toPod: the host route to a pod leads to its link.
func toPod(c *way.Case, h *way.Hop, f *facts.Node, d facts.Decision, dst netip.Addr) {
	link := ""
	for _, p := range f.Pods {
		for _, a := range p.Addresses {
			if a == dst {
				link = p.HostLink
			}
		}
	}
	pod := "the pod at " + dst.String()
	if p := c.Objects.PodAt(dst); p != nil {
		pod = "pod " + p.String()
	}
	cure := "kubectl delete pod # " + pod + ": a new one gets its routes"
	if p := c.Objects.PodAt(dst); p != nil {
		cure = fmt.Sprintf("kubectl -n %s delete pod %s", p.Namespace, p.Name)
	}
	l, there := f.Network.Link(link)
	switch {
	case link != "" && (!there || !l.Up || !l.Running):
		h.Saw("the pod's link %s is down, and with it goes the route", link)
	case d.Error != "" || d.Local:
		h.Broken(cure, "node %s has no route to %s", h.Node, pod)
	case link != "" && d.Dev != link:
		h.Broken(cure, "packets to %s go by %s, and its link is %s", pod, d.Dev, link)
	}
}

func decisionText(d facts.Decision) string {
	text := d.Dev
	if d.Via.IsValid() {
		text += " via " + d.Via.String()
	}
	if d.Local {
		text = "here"
	}
	return text
}
