package trace

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"poplin.dev/poplin/daemon/trace/lookout"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/trace/way"
)

const (
	dnsPort = 53
	// probeTime bounds a probe: nodes stop looking out after it, whatever
	// becomes of this program.
	probeTime = 4 * time.Second
	// mostProbes are the requests of one trace. Ports of all are drawn from
	// below the kernel's own.
	mostProbes = 16
	lowestPort = 10_000
	ports      = 20_000
)

// watch has all nodes on the way look out, and requests be made, or waits for one.
func (g *gatherer) watch(ctx context.Context, cases []way.Case) (p way.Probe) {
	p.Live = g.conf.Live > 0
	limit := probeTime
	if p.Live {
		limit = g.conf.Live
	}
	wants := g.watches(cases, &p, limit)
	ctx, cancel := context.WithTimeout(ctx, limit+probeTime/2)
	defer cancel()
	p.Seen, p.Absent = lookout.Run(ctx, wants, g.talk)
	return p
}

// talk runs one node's part.
func (g *gatherer) talk(ctx context.Context, node string, w facts.Watch, in io.Reader, out io.Writer) error {
	if g.conf.LocalWatch != nil && node == g.conf.LocalName {
		return g.conf.LocalWatch(ctx, w, in, out)
	}
	pod, err := g.daemon(node)
	if err != nil {
		return err
	}
	text, err := json.Marshal(w)
	if err != nil {
		return err
	}
	return g.api.Talk(ctx, g.conf.System, pod, "poplind", []string{"/poplind", "query", "-watch", string(text)}, in, out)
}

// watches are what nodes are told. Requests that would be the same are made once;
// where a Service spreads them, one for each of its endpoints and some more.
func (g *gatherer) watches(cases []way.Case, p *way.Probe, limit time.Duration) map[string]facts.Watch {
	wants := map[string]facts.Watch{}
	port := uint16(lowestPort + rand.IntN(ports))
	node := func(name string, do func(*facts.Watch)) {
		if name == "" {
			return
		}
		w, known := wants[name]
		if !known {
			w = facts.Watch{Overlay: 8472, Limit: limit, Live: p.Live}
			if d := g.in.Facts[name].Daemon; d != nil {
				w.Overlay = d.Settings.Port
			}
		}
		do(&w)
		wants[name] = w
	}
	for i, c := range cases {
		sender, pod := g.sender(c)
		if sender == "" || !c.Dst.Addr().IsValid() {
			continue
		}
		leg := way.Leg{Case: i, Sender: sender}
		for _, name := range []string{sender, c.Enters, c.Node} {
			node(name, func(w *facts.Watch) {
				for _, to := range []netip.AddrPort{c.Front, c.Dst} {
					f := facts.Flow{To: to, Proto: c.Proto}
					if p.Live && pod.IsValid() {
						f.Src = c.From // one that is sent has a port of its own
					}
					if !slices.Contains(w.Flows, f) {
						w.Flows = append(w.Flows, f)
					}
				}
				if name == c.Enters && pod.IsValid() && !slices.Contains(w.Pods, pod) {
					w.Pods = append(w.Pods, pod)
				}
				if at := c.Dst.Addr(); name == c.Node && c.Pod != nil && !slices.Contains(w.Pods, at) {
					w.Pods = append(w.Pods, at)
				}
			})
		}
		if !p.Live && len(p.Legs) < mostProbes {
			port++
			leg.Request = facts.Request{Pod: pod, To: c.Front, Proto: c.Proto, Port: port}
			node(sender, func(w *facts.Watch) { w.Send = append(w.Send, leg.Request) })
		}
		p.Legs = append(p.Legs, leg)
	}
	switch {
	case p.Live:
	case g.in.Web != nil:
		g.pages(p, node, port)
	case g.in.To.ByName && g.in.From.Pod != nil && g.in.Objects.DNS != nil:
		g.lookup(p, node, port+1)
	}
	return wants
}

// lookup has the client ask the cluster's name server.
func (g *gatherer) lookup(p *way.Probe, node func(string, func(*facts.Watch)), port uint16) {
	pod := g.in.From.Pod
	for _, at := range g.in.Objects.DNS.ClusterIPs() {
		own, speaks := g.in.From.Address(at)
		if !speaks || g.conf.Family == 4 && !at.Is4() || g.conf.Family == 6 && at.Is4() {
			continue
		}
		if pod.Spec.HostNetwork {
			own = netip.Addr{}
		}
		ask := facts.Request{Pod: own, To: netip.AddrPortFrom(at, dnsPort), Proto: service.UDP, Port: port, Name: g.in.To.Asked}
		p.Lookup = &way.Leg{Sender: pod.Spec.NodeName, Request: ask}
		node(pod.Spec.NodeName, func(w *facts.Watch) { w.Send = append(w.Send, ask) })
		return
	}
}

// pages asks each replica of the Ingress controller for the URL, from its own node.
func (g *gatherer) pages(p *way.Probe, node func(string, func(*facts.Watch)), port uint16) {
	w := g.in.Web
	scheme, at := "http", uint16(8080)
	if w.TLS {
		scheme, at = "https", 8443
	}
	for _, r := range w.Replicas {
		if !r.Ready() || len(r.Addresses()) == 0 {
			continue
		}
		if number, ok := r.Port(scheme, service.TCP); ok {
			at = number
		}
		port++
		ask := facts.Request{
			To: netip.AddrPortFrom(r.Addresses()[0], at), Proto: service.TCP, Port: port, URL: scheme + "://" + w.Host + w.Path,
		}
		p.Pages = append(p.Pages, way.Page{Node: r.Spec.NodeName, Replica: r.String(), Request: ask})
		node(r.Spec.NodeName, func(x *facts.Watch) { x.Send = append(x.Send, ask) })
	}
}

// sender is who makes a case's request: its pod, its node, or, for a client
// outside, another node than the one that the request enters by.
func (g *gatherer) sender(c way.Case) (node string, pod netip.Addr) {
	switch {
	case c.Src.Pod != nil && !c.Src.Pod.Spec.HostNetwork:
		return c.Src.Pod.Spec.NodeName, c.From
	case c.Src.Node != "":
		return c.Src.Node, netip.Addr{}
	case g.conf.Live > 0:
		return c.Enters, netip.Addr{}
	}
	for _, n := range g.in.Objects.Nodes {
		if n.Name != c.Enters && g.daemons[n.Name] != "" {
			return n.Name, netip.Addr{}
		}
	}
	return "", netip.Addr{}
}
