// Package isolation answers the CNI plugin, which asks before a pod may send:
// do policies hold for it? Inputs are questions on the daemon's socket, and
// what the policy module knows of namespaces and has in the kernel; outputs are
// answers, and a file by which the plugin decides while no daemon runs. It
// refuses a pod rather than to guess, and never makes one wait that no policy
// can be about.
package isolation

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"poplin.dev/poplin/install"
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/pkg/policy/claims"
	"poplin.dev/poplin/plugins/isolation"
	links "poplin.dev/poplin/plugins/poplin/apply"
)

// Deps is all the module uses.
type Deps struct {
	// Dir is where the file is, in what outlives a reboot.
	Dir string
	// Claim tells policies of a pod's addresses, and closes the channel when
	// they hold for them.
	Claim func(claims.Claim) <-chan struct{}
	// Waiting says what policies wait for; empty is nothing.
	Waiting func() string
	// Saved is called when the file is there; it must not block.
	Saved func()
	Log   *slog.Logger
}

// Module implements loop.Task and http.Handler.
type Module struct {
	deps  Deps
	ready *loop.Ready
	queue *loop.Queue[string]

	mu         sync.Mutex
	namespaces isolation.Namespaces
}

// New makes the module with what an earlier daemon knew. A file that cannot be
// used is no reason not to start.
func New(deps Deps) *Module {
	// A policy counts for the file's reader when the daemon is gone: there is
	// time to write several at once.
	m := &Module{deps: deps, ready: loop.NewReady(), queue: loop.NewQueue[string](50*time.Millisecond, time.Second)}
	text, err := os.ReadFile(path(deps.Dir))
	if err == nil {
		m.namespaces, err = isolation.ParseNamespaces(text)
	}
	switch {
	case err == nil:
		m.ready.Set()
	case !errors.Is(err, fs.ErrNotExist):
		deps.Log.Warn("ignore which namespaces had policies", "file", path(deps.Dir), "error", err)
	}
	return m
}

func path(dir string) string { return filepath.Join(dir, isolation.File) }

// Remove forgets what an earlier daemon knew.
func Remove(dir string) error {
	if err := os.Remove(path(dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget which namespaces had policies: %w", err)
	}
	return nil
}

// Recall claims the addresses that a network's pods have from before this
// daemon, which the API server may not have heard of yet. It reads the network
// namespace of the calling thread.
func (m *Module) Recall(network string) error {
	list, err := links.Links(network)
	if err != nil {
		return fmt.Errorf("look for pods' addresses: %w", err)
	}
	for _, l := range list {
		namespace, name, isPod := strings.Cut(strings.TrimPrefix(l.Alias, network+":"), "/")
		if isPod && len(l.Addrs) > 0 {
			m.deps.Claim(claims.Claim{Pod: policy.Key{Namespace: namespace, Name: name}, Addresses: l.Addrs})
		}
	}
	return nil
}

// Set takes over whether policies are about pods of each namespace.
func (m *Module) Set(namespaces map[string]bool) {
	m.mu.Lock()
	changed := m.namespaces == nil || !maps.Equal(m.namespaces, namespaces)
	m.namespaces = namespaces
	m.mu.Unlock()
	if changed {
		m.queue.Add(isolation.File)
	}
}

// Saved reports whether the file is there: the plugin may be told to ask.
func (m *Module) Saved() bool {
	select {
	case <-m.ready.Done():
		return true
	default:
		return false
	}
}

// Run implements loop.Task.
func (m *Module) Run(ctx context.Context) error {
	w := loop.Worker[string]{
		Name: m.String(), Queue: m.queue, Do: m.save, Log: m.deps.Log,
		Backoff: loop.Backoff{Min: time.Second, Max: time.Minute},
	}
	return w.Run(ctx)
}

// Ready implements loop.Task: there is a file.
func (m *Module) Ready() <-chan struct{} { return m.ready.Done() }

// String implements loop.Task.
func (m *Module) String() string { return "isolation" }

func (m *Module) save(context.Context, []string) error {
	m.mu.Lock()
	now := m.namespaces
	m.mu.Unlock()
	text, err := now.Marshal()
	if err != nil {
		return fmt.Errorf("write which namespaces have policies: %w", err)
	}
	if err := os.MkdirAll(m.deps.Dir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	if _, err := install.File(path(m.deps.Dir), 0o600, text); err != nil {
		return err
	}
	if !m.Saved() {
		m.ready.Set()
		m.deps.Saved()
	}
	return nil
}
