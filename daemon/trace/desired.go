package trace

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/kube/policies"
	"poplin.dev/poplin/pkg/overlay"
	"poplin.dev/poplin/pkg/policy"
	"poplin.dev/poplin/pkg/policy/verdict"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/pkg/program/vip"
	compiler "poplin.dev/poplin/pkg/services"
	"poplin.dev/poplin/pkg/trace/way"
)

// viewTime is how long the whole of Services or policies is waited for.
const viewTime = 3 * time.Second

// desired compiles what a node should hold, as its daemon does.
func (g *gatherer) desired(ctx context.Context, node string) way.Desired {
	d := way.Desired{Lacks: map[string]string{}, Refused: map[string]string{}}
	f := g.in.Facts[node]
	settings := facts.Settings{Services: true, Policy: true, VNI: 1, Port: 8472}
	if f.Daemon != nil {
		settings = f.Daemon.Settings
	}
	g.net(&d, node, f, settings)
	if err := wait(ctx, g.services.Ready(), g.services.Waiting); err != nil {
		d.Lacks["services"] = err.Error()
	} else {
		d.Services = g.vips(node, f, settings)
	}
	if err := wait(ctx, g.policies.Ready(), g.policies.Waiting); err != nil {
		d.Lacks["policy"] = err.Error()
	} else {
		g.verdicts(&d, node)
	}
	return d
}

func wait(ctx context.Context, ready <-chan struct{}, waiting func() string) error {
	ctx, stop := context.WithTimeout(ctx, viewTime)
	defer stop()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return errors.New(waiting())
	}
}

func (g *gatherer) net(d *way.Desired, node string, f facts.Node, settings facts.Settings) {
	own, published := g.in.Objects.Network(node)
	if !published {
		d.Lacks["net"] = "node " + node + " has published no NodeNetwork"
		return
	}
	self := overlay.Self{
		Name: node, PodCIDRs: own.PodCIDRs, MAC: own.VTEP.MAC, MTU: own.MTU, VNI: settings.VNI, Port: settings.Port,
		NoTunnel: !own.VTEP.Tunnel(), Direct: own.Direct, Underlay: cluster.Underlay{Addr: own.VTEP.Addr},
	}
	if f.Network != nil {
		if l, held := f.Network.Holder(own.VTEP.Addr); held {
			self.Underlay = cluster.Underlay{Link: l.Name, Index: l.Index, Addr: own.VTEP.Addr, MTU: l.MTU}
		}
	}
	peers, refused := overlay.Peers(self, g.in.Objects.Networks, nil)
	for _, r := range refused {
		d.Refused[r.Node] = r.Reason
	}
	if f.Daemon != nil {
		for name, why := range f.Daemon.Refused {
			d.Refused[name] = why
		}
	}
	d.Net = overlay.Compile(self, peers)
}

func (g *gatherer) vips(node string, f facts.Node, settings facts.Settings) vip.Program {
	o, _ := g.in.Objects.Node(node)
	known := map[netip.Addr]bool{}
	for _, n := range g.in.Objects.Nodes {
		for _, a := range n.Addresses() {
			known[a] = true
		}
	}
	n := compiler.Node{
		Name: node, Zone: o.Labels["topology.kubernetes.io/zone"], Addresses: o.Addresses(), NodePortAddresses: o.Addresses(),
		OverlayPort: settings.Port, ExternalRanges: settings.ExternalRanges, ServiceRanges: g.services.Ranges(),
		IsNodeAddress: func(a netip.Addr) bool { return known[a] },
	}
	if len(settings.NodePortAddresses) > 0 && f.Network != nil {
		n.NodePortAddresses = nil
		for _, l := range f.Network.Links {
			for _, p := range l.Addresses {
				if slices.ContainsFunc(settings.NodePortAddresses, func(r netip.Prefix) bool { return r.Contains(p.Addr()) }) {
					n.NodePortAddresses = append(n.NodePortAddresses, p.Addr())
				}
			}
		}
	}
	before := vip.New()
	if g.keepNumbers && f.Rules != nil {
		before = f.Rules.Services.Program
	}
	t := compiler.NewTable(n, before)
	t.SetAll(g.services.Services(), g.services.Slices)
	return t.Program()
}

func (g *gatherer) verdicts(d *way.Desired, node string) {
	t := policy.NewTable(node, permit.New())
	v := g.policies
	for _, k := range v.Keys(policies.Namespaces) {
		if o, ok := v.Namespace(k); ok {
			t.SetNamespace(o)
		}
	}
	for _, k := range v.Keys(policies.Pods) {
		if o, ok := v.Pod(k); ok {
			t.SetPod(o)
		}
	}
	for _, k := range v.Keys(policies.Policies) {
		if o, ok := v.Policy(k); ok {
			t.SetPolicy(o)
		}
	}
	for _, k := range v.Keys(policies.Nodes) {
		if o, ok := v.Node(k); ok {
			t.SetNode(o)
		}
	}
	for _, k := range v.Keys(policies.ClusterPolicies) {
		if o, ok, waits := v.ClusterPolicy(k); ok && !waits {
			t.SetClusterPolicy(o)
		}
	}
	d.Policy = t.Program()
	d.Explain = func(sending bool, src netip.Addr, dst netip.AddrPort, proto service.Protocol) string {
		want := verdict.Ingress
		if sending {
			want = verdict.Egress
		}
		for _, x := range t.Explain(policy.Packet{Src: src, Dst: dst, Proto: proto}) {
			if x.Direction == want && !x.Allowed {
				return strings.TrimSpace(x.String())
			}
		}
		return ""
	}
}
