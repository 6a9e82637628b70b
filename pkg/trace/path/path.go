// Package path walks the whole way of one request through a cluster, hop by
// hop, and names the one that is broken. Input is all there is to know
// (pkg/trace/way); output is a report. It refuses to guess: what could not be
// looked at is UNKNOWN, never OK.
//
// The hops are functions in pkg/trace/hops: what the API's objects say (api),
// nodes and daemons (node), the kernels of nodes (network), the inside of pods
// (pod). A new one is one more line below.
package path

import (
	"slices"

	"poplin.dev/poplin/pkg/trace/hops/api"
	"poplin.dev/poplin/pkg/trace/hops/network"
	"poplin.dev/poplin/pkg/trace/hops/node"
	"poplin.dev/poplin/pkg/trace/hops/pod"
	"poplin.dev/poplin/pkg/trace/way"
)

// steps are the hops of one case in the order in which the packet meets them,
// but for the network between the nodes: what asks it needs answers.
func steps() []func(*way.Case) []way.Hop {
	return []func(*way.Case) []way.Hop{
		node.Up,                // Node, Daemon
		pod.Sender,             // PodLink, PodAddress, PodRoute of the source
		network.ServiceProgram, // ServiceProgram
		network.Conntrack,      // Conntrack
		network.PolicyEgress,   // PolicyEgress
		network.Sysctls,        // Sysctl
		network.Route,          // Route
		network.Overlay,        // Overlay
		network.FirewallOut,    // Firewall, where the packet enters
		network.Decapsulation,  // Decapsulation
		network.Guard,          // Guard
		network.FirewallIn,     // Firewall, where it ends
		network.PolicyIngress,  // PolicyIngress
		pod.Receiver,           // PodLink, PodAddress, PodRoute of the destination
		network.Return,         // Return
		network.Underlay,       // Underlay
		network.MTU,            // MTU
		pod.Socket,             // Socket
	}
}

// Walk explains.
func Walk(in *way.Input) way.Report {
	r := way.Report{From: in.From.String(), To: in.To.Name, Taken: in.Now, Memory: in.Memory, Sections: way.Sections(in)}
	add := func(hops ...way.Hop) {
		for _, h := range hops {
			if h.Status == "" {
				h.Status = way.OK
			}
			if !slices.ContainsFunc(r.Hops, func(k way.Hop) bool {
				return k.Hop == h.Hop && k.Node == h.Node && k.About == h.About && k.Status == h.Status
			}) {
				r.Hops = append(r.Hops, h)
			}
		}
	}
	add(api.DNS(in)...)
	add(api.Entry(in)...)
	add(node.Addressed(in)...)
	add(api.Ingress(in)...)
	for _, to := range []*way.Target{&in.To, in.Behind} {
		if to != nil {
			add(api.Service(in, *to)...)
			add(api.Endpoints(in, *to)...)
		}
	}
	for _, c := range way.Cases(in) {
		for _, step := range steps() {
			add(step(&c)...)
		}
	}
	node.Blame(r.Hops)
	r.Conclude()
	return r
}
