// Package should compiles what a node should hold, as its daemon does. Inputs are
// the API's objects, settings of the node and addresses of its devices; output is
// what pkg/trace/way compares with the node's facts. It refuses to guess: a part
// of whose objects not all are known is named with the reason.
package should

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster"
	policies "poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/overlay"
	"poplin.dev/poplin/pkg/policy"
	"poplin.dev/poplin/pkg/policy/verdict"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/pkg/program/vip"
	compiler "poplin.dev/poplin/pkg/services"
	"poplin.dev/poplin/pkg/trace/way"
)

// Objects are what is compiled.
type Objects struct {
	way.Objects
	// Services with their slices, and the ranges of their addresses.
	Services []service.Service
	Slices   func(service.Key) []service.Slice
	Ranges   []netip.Prefix
	Policies policies.Objects
	// Missing has, by part (services, policy), why that is not known.
	Missing map[string]string
}

// Hold compiles for one node. Services keep the numbers that the node has given
// them, if those are to be compared.
func Hold(o Objects, node string, f facts.Node, keepNumbers bool) way.Desired {
	d := way.Desired{Lacks: maps.Clone(o.Missing), Refused: map[string]string{}}
	if d.Lacks == nil {
		d.Lacks = map[string]string{}
	}
	settings := facts.Settings{Services: true, Policy: true, VNI: 1, Port: 8472}
	if f.Daemon != nil {
		settings = f.Daemon.Settings
	}
	o.net(&d, node, f, settings)
	if d.Lacks["services"] == "" {
		d.Services = o.vips(node, f, settings, keepNumbers)
	}
	if d.Lacks["policy"] == "" {
		o.verdicts(&d, node)
	}
	return d
}

func (o Objects) net(d *way.Desired, node string, f facts.Node, settings facts.Settings) {
	own, published := o.Network(node)
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
	peers, refused := overlay.Peers(self, o.Networks, nil)
	for _, r := range refused {
		d.Refused[r.Node] = r.Reason
	}
	if f.Daemon != nil {
		maps.Copy(d.Refused, f.Daemon.Refused)
	}
	d.Net = overlay.Compile(self, peers)
}

func (o Objects) vips(node string, f facts.Node, settings facts.Settings, keepNumbers bool) vip.Program {
	self, _ := o.Node(node)
	known := map[netip.Addr]bool{}
	for _, n := range o.Nodes {
		for _, a := range n.Addresses() {
			known[a] = true
		}
	}
	n := compiler.Node{
		Name: node, Zone: self.Labels["topology.kubernetes.io/zone"], Addresses: self.Addresses(), NodePortAddresses: self.Addresses(),
		OverlayPort: settings.Port, ExternalRanges: settings.ExternalRanges, ServiceRanges: o.Ranges,
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
	if keepNumbers && f.Rules != nil {
		before = f.Rules.Services.Program
	}
	t := compiler.NewTable(n, before)
	t.SetAll(o.Services, o.Slices)
	return t.Program()
}

func (o Objects) verdicts(d *way.Desired, node string) {
	t := policy.NewTable(node, permit.New())
	for _, x := range o.Policies.Namespaces {
		t.SetNamespace(x)
	}
	for _, x := range o.Policies.Pods {
		t.SetPod(x)
	}
	for _, x := range o.Policies.Policies {
		t.SetPolicy(x)
	}
	for _, x := range o.Policies.Nodes {
		t.SetNode(x)
	}
	for _, x := range o.Policies.Cluster {
		t.SetClusterPolicy(x)
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
