// Package snapshot keeps the last complete view of the cluster on disk, and
// stands in with it while a daemon that has just started cannot reach the API
// server: a node that boots alone gets its overlay back. Inputs are a Source
// and the file; output is the same Source, complete earlier. It refuses a file
// of another node or of an earlier life of this one, and steps back for good
// as soon as the API server has answered.
package snapshot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"poplin.dev/poplin/install"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/loop"
)

// Source is a view of the cluster, as the overlay reads it.
type Source interface {
	Self() (self cluster.Self, ok bool)
	Nodes() (nodes []cluster.Node, ok bool)
	Subscribe(changed func())
}

// Deps is all that a Keeper uses.
type Deps struct {
	Source Source
	// Node is this node's name, Path the file.
	Node, Path string
	// Grace is how long the API server has to answer before the file does.
	Grace time.Duration
	Log   *slog.Logger
}

// view is the file's content.
type view struct {
	Version int
	Saved   time.Time
	Self    cluster.Self
	Nodes   []cluster.Node
}

// maxFormer bounds the ranges that are remembered.
const maxFormer = 8

// version is raised when an older daemon could not read the file right.
const version = 1

// Keeper is the Source with its file; it implements loop.Task.
type Keeper struct {
	deps  Deps
	queue *loop.Queue[string]
	ready *loop.Ready

	mu          sync.Mutex
	saved       *view          // nil: there is none to fall back on
	due         bool           // the grace time is over
	ranges      []netip.Prefix // that the Node had when it was last read
	former      []netip.Prefix // that it had before
	subscribers []func()
}

// New reads the file. One that cannot be used is no reason not to start.
func New(deps Deps) *Keeper {
	k := &Keeper{
		deps: deps, ready: loop.NewReady(),
		// A node that joins costs all others a write of their files, so a
		// rush of them costs one now and then.
		queue: loop.NewQueue[string](time.Second, 30*time.Second),
	}
	saved, err := load(deps.Path, deps.Node)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		deps.Log.Warn("ignore the last known view of the cluster", "file", deps.Path, "error", err)
	default:
		k.saved = saved
		k.ranges, k.former = saved.Self.PodCIDRs, saved.Self.Former
	}
	deps.Source.Subscribe(func() { k.queue.Add(deps.Path) })
	return k
}

// Last reads what the file of a node says, and when that was written.
func Last(path, node string) (saved time.Time, self cluster.Self, nodes []cluster.Node, err error) {
	v, err := load(path, node)
	if err != nil {
		return saved, self, nil, fmt.Errorf("read the last known view of the cluster: %w", err)
	}
	return v.Saved, v.Self, v.Nodes, nil
}

func load(path, node string) (*view, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	v := &view{}
	if err := json.Unmarshal(text, v); err != nil {
		return nil, err
	}
	switch {
	case v.Version != version:
		return nil, fmt.Errorf("its version is %d, this program knows %d", v.Version, version)
	case v.Self.Name != node:
		return nil, fmt.Errorf("it is of node %q", v.Self.Name)
	}
	return v, nil
}

// Self implements Source.
func (k *Keeper) Self() (cluster.Self, bool) {
	if self, ok := k.deps.Source.Self(); ok {
		self.Former = k.remember(self.PodCIDRs)
		return self, true
	}
	if v := k.fallback(); v != nil {
		return v.Self, true
	}
	return cluster.Self{}, false
}

// remember returns the ranges that the Node had before those it has now. None
// at all are no change: they are late.
func (k *Keeper) remember(now []netip.Prefix) []netip.Prefix {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(now) > 0 && !slices.Equal(now, k.ranges) {
		former := slices.DeleteFunc(slices.Concat(k.former, k.ranges), func(p netip.Prefix) bool { return slices.Contains(now, p) })
		k.former = former[max(0, len(former)-maxFormer):]
		k.ranges = now
	}
	return k.former
}

// Nodes implements Source.
func (k *Keeper) Nodes() ([]cluster.Node, bool) {
	if nodes, ok := k.deps.Source.Nodes(); ok {
		return nodes, true
	}
	if v := k.fallback(); v != nil {
		return v.Nodes, true
	}
	return nil, false
}

// Subscribe implements Source.
func (k *Keeper) Subscribe(changed func()) {
	k.mu.Lock()
	k.subscribers = append(k.subscribers, changed)
	k.mu.Unlock()
	k.deps.Source.Subscribe(changed)
}

// fallback is the saved view while it has to do. A list of nodes from the API
// server makes it void, and so does a Node that was made anew: its ranges are
// others.
func (k *Keeper) fallback() *view {
	k.mu.Lock()
	v := k.saved
	if !k.due {
		v = nil
	}
	k.mu.Unlock()
	if v == nil {
		return nil
	}
	if _, answered := k.deps.Source.Nodes(); answered {
		return nil
	}
	if self, ok := k.deps.Source.Self(); ok && self.UID != v.Self.UID {
		return nil
	}
	return v
}

// Stale is the age of what stands in for the API server's answer; zero while
// nothing has to.
func (k *Keeper) Stale() time.Time {
	if v := k.fallback(); v != nil {
		return v.Saved
	}
	return time.Time{}
}

// Run implements loop.Task.
func (k *Keeper) Run(ctx context.Context) error {
	k.ready.Set()
	k.queue.Add(k.deps.Path)
	w := loop.Worker[string]{
		Name: k.String(), Queue: k.queue, Do: k.save, Log: k.deps.Log,
		Backoff: loop.Backoff{Min: time.Second, Max: time.Minute},
		Beside:  []func(context.Context){k.wait},
	}
	return w.Run(ctx)
}

// Ready implements loop.Task.
func (k *Keeper) Ready() <-chan struct{} { return k.ready.Done() }

// String implements loop.Task.
func (k *Keeper) String() string { return "snapshot" }

// wait lets the file answer when the API server does not.
func (k *Keeper) wait(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(k.deps.Grace):
	}
	k.mu.Lock()
	k.due = true
	subscribers := k.subscribers
	k.mu.Unlock()
	v := k.fallback()
	if v == nil {
		return
	}
	k.deps.Log.Warn("the API server does not answer: this node's network is as it was last known", "since", v.Saved, "nodes", len(v.Nodes))
	for _, f := range subscribers {
		f()
	}
}

// save writes the API server's view, once it is complete.
func (k *Keeper) save(context.Context, []string) error {
	nodes, complete := k.deps.Source.Nodes()
	self, ok := k.deps.Source.Self()
	self.Former = k.remember(self.PodCIDRs)
	if !ok || !complete {
		return nil
	}
	text, err := json.Marshal(view{Version: version, Saved: time.Now().UTC(), Self: self, Nodes: nodes})
	if err != nil {
		return fmt.Errorf("write the view of the cluster: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(k.deps.Path), 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	_, err = install.File(k.deps.Path, 0o600, append(text, '\n'))
	return err
}
