// Package cgroup keeps the cgroups of a cluster: it makes them, kills what runs
// in them and removes them. In: paths below the root of the hierarchy. It knows
// pure cgroup v2 hosts and hybrid ones, where cgroup v1 has the controllers and
// an empty v2 tree stands beside it; every process of a cluster is in the v2
// tree on both, so that one write there kills them all. It refuses hosts
// without any v2 tree.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const root = "/sys/fs/cgroup"

// controllers are those a kubelet wants; it insists on hugetlb where the root
// of the hierarchy has it.
var controllers = []string{"cpuset", "cpu", "io", "memory", "pids", "hugetlb"}

// Layout is how this machine's cgroups are mounted.
type Layout struct {
	unified string   // mount point of the v2 tree
	legacy  []string // mount points of v1 hierarchies, on hybrid hosts
}

// Detect finds the layout.
func Detect() (Layout, error) {
	if isType(root, unix.CGROUP2_SUPER_MAGIC) {
		return Layout{unified: root}, nil
	}
	layout := Layout{unified: filepath.Join(root, "unified")}
	if !isType(layout.unified, unix.CGROUP2_SUPER_MAGIC) {
		return Layout{}, fmt.Errorf("detect cgroups: neither %s nor %s is a cgroup v2 tree; mount one: mkdir -p %s && mount -t cgroup2 cgroup2 %s",
			root, layout.unified, layout.unified, layout.unified)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return Layout{}, fmt.Errorf("detect cgroups: %w", err)
	}
	for _, entry := range entries {
		if dir := filepath.Join(root, entry.Name()); entry.IsDir() && isType(dir, unix.CGROUP_SUPER_MAGIC) {
			layout.legacy = append(layout.legacy, dir)
		}
	}
	return layout, nil
}

func isType(path string, magic int64) bool {
	var s unix.Statfs_t
	return unix.Statfs(path, &s) == nil && s.Type == magic
}

// V2 says whether the controllers are those of cgroup v2.
func (l Layout) V2() bool { return len(l.legacy) == 0 }

func (l Layout) String() string {
	if l.V2() {
		return "cgroup v2"
	}
	return "cgroup v1 hybrid"
}

// Make makes a cgroup with all its controllers, for a kubelet to divide.
func (l Layout) Make(path string) error {
	for _, tree := range append([]string{l.unified}, l.legacy...) {
		if err := os.MkdirAll(filepath.Join(tree, path), 0o755); err != nil {
			return fmt.Errorf("make cgroup %s: %w", path, err)
		}
	}
	if l.V2() {
		return l.enable(path)
	}
	return l.fillCPUSet(path)
}

// Leaf makes a cgroup for processes and opens it. It has no controllers of its
// own: on cgroup v2 a group either divides resources or holds processes.
func (l Layout) Leaf(path string) (*os.File, error) {
	dir := filepath.Join(l.unified, path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cgroup %s: %w", path, err)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", path, err)
	}
	return f, nil
}

// enable passes the controllers down from the root to path.
func (l Layout) enable(path string) error {
	dir := l.unified
	for _, step := range append([]string{""}, strings.Split(path, "/")...) {
		dir = filepath.Join(dir, step)
		available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err != nil {
			return fmt.Errorf("enable controllers of cgroup %s: %w", path, err)
		}
		for _, controller := range controllers {
			if !slices.Contains(strings.Fields(string(available)), controller) {
				if controller == "hugetlb" {
					continue
				}
				return fmt.Errorf("enable controllers of cgroup %s: %s has no controller %s; does its parent pass it on?", path, dir, controller)
			}
			if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
				return fmt.Errorf("enable controller %s of cgroup %s: %w", controller, path, err)
			}
		}
	}
	return nil
}

// fillCPUSet copies the CPUs and memory nodes down: on cgroup v1 a new cpuset
// has none, and no process can enter it.
func (l Layout) fillCPUSet(path string) error {
	dir := filepath.Join(root, "cpuset")
	for _, step := range strings.Split(path, "/") {
		for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if errors.Is(err, fs.ErrNotExist) {
				return nil // no such controller here
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, step, name), b, 0)
			}
			if err != nil {
				return fmt.Errorf("fill %s of cgroup %s: %w", name, path, err)
			}
		}
		dir = filepath.Join(dir, step)
	}
	return nil
}

// Exists says whether any hierarchy has the cgroup.
func (l Layout) Exists(path string) bool {
	for _, tree := range append([]string{l.unified}, l.legacy...) {
		if _, err := os.Stat(filepath.Join(tree, path)); err == nil {
			return true
		}
	}
	return false
}

// Kill ends every process in a cgroup and those below it, and returns when they
// are gone.
func (l Layout) Kill(ctx context.Context, path string) error {
	for {
		left := 0
		if f := filepath.Join(l.unified, path, "cgroup.kill"); os.WriteFile(f, []byte("1"), 0) != nil {
			left += killAll(filepath.Join(l.unified, path)) // Linux before 5.14 has no cgroup.kill
		}
		left += count(filepath.Join(l.unified, path))
		for _, tree := range l.legacy {
			left += killAll(filepath.Join(tree, path))
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill processes of cgroup %s: %d are left: %w", path, left, ctx.Err())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func killAll(dir string) int {
	pids := processes(dir)
	for _, pid := range pids {
		_ = unix.Kill(pid, unix.SIGKILL) // gone already, or the next round tells
	}
	return len(pids)
}

func count(dir string) int { return len(processes(dir)) }

// processes lists the processes of a cgroup and those below; what vanishes
// meanwhile has none.
func processes(dir string) []int {
	var pids []int
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.IsDir() {
			return nil
		}
		b, _ := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		for _, field := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// Remove removes a cgroup and those below it, which must be empty.
func (l Layout) Remove(path string) error {
	var errs []error
	for _, tree := range append([]string{l.unified}, l.legacy...) {
		errs = append(errs, removeTree(filepath.Join(tree, path)))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove cgroup %s: %w", path, err)
	}
	return nil
}

func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(dir, entry.Name())); err != nil {
				return err
			}
		}
	}
	// The kernel may take a moment to see that the last process has left.
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("%s: %w", dir, err)
		}
	}
}
