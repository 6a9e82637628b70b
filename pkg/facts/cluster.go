package facts

import (
	"net/netip"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
)

// Cluster is what a node knows of the API's objects without asking for them: what
// its daemon has read and goes on with while the API server is away.
type Cluster struct {
	// Since is when the API server was last heard of; zero while it answers.
	// Problem is what asking it ends with since then.
	Since   time.Time `json:"since,omitzero"`
	Problem string    `json:"problem,omitempty"`
	// Missing has, by part (nodes, services, policy), why that is not known.
	Missing map[string]string `json:"missing,omitempty"`

	// Self is this node, Nodes are all that are part of the pod network.
	Self  cluster.Self   `json:"self"`
	Nodes []cluster.Node `json:"nodes,omitempty"`
	// Services are those that have an address, with the slices of their
	// endpoints; Ranges are where addresses of Services are.
	Services []service.Service `json:"services,omitempty"`
	Slices   []service.Slice   `json:"slices,omitempty"`
	Ranges   []netip.Prefix    `json:"ranges,omitempty"`
	// Policy has pods, namespaces, and policies.
	Policy policy.Objects `json:"policy"`
}

// Lacks notes why a part is not known.
func (c *Cluster) Lacks(part, why string) {
	if why == "" {
		return
	}
	if c.Missing == nil {
		c.Missing = map[string]string{}
	}
	c.Missing[part] = why
}
