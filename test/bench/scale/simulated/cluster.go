// Package simulated is a cluster for a bench, as far as one node and the API
// server can tell: Nodes, NodeNetworks, leases, pods, Services with their
// slices and policies, and those who write them as in life. Inputs are a
// control plane and how many nodes; output is what the API server holds, which
// goes on changing while the cluster lives. It refuses to run anything: behind
// the objects there is no machine.
package simulated

import (
	"context"
	"sync"

	"poplin.dev/poplin/test/bench/plane"
)

// Cluster is the objects of a control plane.
type Cluster struct {
	plane *plane.Plane
	size  int // nodes beside Self

	mu     sync.Mutex
	lives  map[pod]int  // how often it was replaced
	ending map[pod]bool // it is on its way out
}

// New is a cluster of no objects yet. size are the nodes beside Self, at most
// Largest.
func New(p *plane.Plane, size int) *Cluster {
	return &Cluster{plane: p, size: size, lives: map[pod]int{}, ending: map[pod]bool{}}
}

// Make makes Self's Node, and of the other nodes all that kubelets and daemons
// write.
func (c *Cluster) Make(ctx context.Context) error {
	if _, err := c.create(ctx, nodesPath, "kubelet", Self.object()); err != nil {
		return err
	}
	return c.others(ctx)
}
