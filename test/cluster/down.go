package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"poplin.dev/poplin/test/cluster/cgroup"
	"poplin.dev/poplin/test/cluster/place"
	"poplin.dev/poplin/test/cluster/plan"
	"poplin.dev/poplin/test/cluster/progress"
	"poplin.dev/poplin/test/cluster/underlay"
)

// Down takes a cluster down, whole or what is left of one. It says so when
// there is none, which is no error.
func Down(ctx context.Context, name string, out io.Writer) error {
	if err := checkName(name); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("root is missing: run this as root (sudo), it removes namespaces and mounts")
	}
	if found, err := remains(name); err != nil || !found {
		if err == nil {
			fmt.Fprintf(out, "         there is no cluster %s\n", name)
		}
		return err
	}
	if dir, err := place.Lock(name); err == nil {
		defer dir.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	start := time.Now()
	if err := remove(ctx, name); err != nil {
		return err
	}
	progress.New(out).Line(time.Since(start), "cluster "+name+" is down")
	return nil
}

// remains says whether there is anything of a cluster.
func remains(name string) (bool, error) {
	layout, err := cgroup.Detect()
	if err != nil {
		return false, err
	}
	if place.Free(name) != nil || layout.Exists(cgroupOf(name)) {
		return true, nil
	}
	namespaces, err := underlay.Names()
	return slices.ContainsFunc(namespaces, func(n string) bool { return plan.Ours(name, n) }), err
}

// remove removes everything by its name, in an order in which each step can be
// repeated: an aborted removal is finished by the next.
func remove(ctx context.Context, name string) error {
	layout, err := cgroup.Detect()
	if err != nil {
		return err
	}
	if layout.Exists(cgroupOf(name)) {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		if err := layout.Kill(ctx, cgroupOf(name)); err != nil {
			return err
		}
		if err := layout.Remove(cgroupOf(name)); err != nil {
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
