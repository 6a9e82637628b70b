// Package remains knows what a cluster leaves on the machine: cgroups, network
// namespaces and directories, all found by its name. In: that name. Out: whether
// there is anything, and its removal, which the next call finishes if one is
// aborted. It refuses to touch what another cluster's name is on.
package remains

import (
	"context"
	"slices"
	"time"

	"poplin.dev/poplin/test/cluster/cgroup"
	"poplin.dev/poplin/test/cluster/place"
	"poplin.dev/poplin/test/cluster/plan"
	"poplin.dev/poplin/test/cluster/underlay"
)

// Any says whether there is anything of a cluster.
func Any(name string) (bool, error) {
	layout, err := cgroup.Detect()
	if err != nil {
		return false, err
	}
	if place.Free(name) != nil || layout.Exists(plan.Cgroup(name)) {
		return true, nil
	}
	namespaces, err := underlay.Names()
	return slices.ContainsFunc(namespaces, func(n string) bool { return plan.Ours(name, n) }), err
}

// Remove removes everything, in an order in which each step can be repeated.
func Remove(ctx context.Context, name string) error {
	layout, err := cgroup.Detect()
	if err != nil {
		return err
	}
	if layout.Exists(plan.Cgroup(name)) {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := layout.Kill(ctx, plan.Cgroup(name)); err != nil {
			return err
		}
		if err := layout.Remove(plan.Cgroup(name)); err != nil {
			return err
		}
	}
	namespaces, err := underlay.Names()
	if err != nil {
		return err
	}
	for _, n := range namespaces {
		if plan.Ours(name, n) {
			if err := underlay.Remove(n); err != nil {
				return err
			}
		}
	}
	return place.Remove(name)
}
