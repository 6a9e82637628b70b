package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/cluster/cgroup"
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
	if dir, err := lock(name); err == nil {
		defer dir.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	start := time.Now()
	if err := remove(ctx, name); err != nil {
		return err
	}
	(&steps{out: out}).line(time.Since(start), "cluster "+name+" is down")
	return nil
}

// remains says whether there is anything of a cluster.
func remains(name string) (bool, error) {
	layout, err := cgroup.Detect()
	if err != nil {
		return false, err
	}
	if exists(name) != nil || layout.Exists(cgroupOf(name)) {
		return true, nil
	}
	namespaces, err := underlay.Names()
	return slices.ContainsFunc(namespaces, func(n string) bool { return ours(name, n) }), err
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
		if ours(name, n) {
			if err := underlay.Remove(n); err != nil {
				return err
			}
		}
	}
	// The disk goes before the run directory, whose existence keeps the name.
	for _, root := range []string{diskRoot, runRoot} {
		if err := removeDirectory(filepath.Join(root, name)); err != nil {
			return err
		}
		if err := os.Remove(root); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return fmt.Errorf("remove %s: %w", root, err)
		}
	}
	return nil
}

// removeDirectory refuses to look into a mount: all of a cluster's are in
// namespaces that are gone, hence one here is someone else's.
func removeDirectory(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4]+"/", dir+"/") {
			return fmt.Errorf("remove %s: something is mounted at %s; unmount it first", dir, fields[4])
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}
