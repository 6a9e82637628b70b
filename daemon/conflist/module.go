// Package conflist tells the container runtime of the pod network, and the
// cluster that it is there. Input is this node's part in the network, given
// once the overlay is in place, or why it can have none; outputs are the
// conflist, written whole or not at all, a file that says whether pods may
// start, and a call that announces it. It refuses to write the conflist before
// that, and never takes it away: pods that are there keep their network while
// the daemon is not.
package conflist

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"time"

	"poplin.dev/poplin/install"
	"poplin.dev/poplin/pkg/loop"
)

// Deps is all the module uses.
type Deps struct {
	Config Config
	// Announce tells the cluster that pods may start here: idempotent, and
	// called again and again, because others may say the opposite.
	Announce func(context.Context) error
	// Report gets what is true after every pass; it must not block.
	Report func(State)
	Log    *slog.Logger
	// Resync is how often the file is looked at.
	Resync time.Duration
}

// State is what is true after a pass.
type State struct {
	// Path of the conflist; empty until it was written.
	Path string
	// Wrote says that this pass wrote it.
	Wrote bool
	// Preferred are files of other networks that the runtime takes instead:
	// a leftover, or a program such as Multus that delegates to us.
	Preferred []string
	// Took is how long the pass lasted, Err what it failed with.
	Took time.Duration
	Err  error
}

// Module keeps the conflist; it implements loop.Task.
type Module struct {
	deps  Deps
	queue *loop.Queue[string]
	ready *loop.Ready

	mu   sync.Mutex
	node *Node // nil until the overlay is in place
	held string
	last State
}

// New makes the module; Run starts it.
func New(deps Deps) *Module {
	return &Module{deps: deps, queue: loop.NewQueue[string](10*time.Millisecond, 100*time.Millisecond), ready: loop.NewReady()}
}

// Set is called when the overlay is in place, each time with the whole node.
func (m *Module) Set(n Node) {
	m.mu.Lock()
	changed := m.node == nil || !reflect.DeepEqual(*m.node, n) || m.held != ""
	m.node, m.held = &n, ""
	m.mu.Unlock()
	if changed {
		m.queue.Add(File)
	}
}

// Hold is called when no pod may start until the next Set, and says why. The
// conflist stays as it is.
func (m *Module) Hold(reason string) {
	m.mu.Lock()
	changed := m.held != reason
	m.held = reason
	m.mu.Unlock()
	if changed {
		m.queue.Add(File)
	}
}

// Run implements loop.Task.
func (m *Module) Run(ctx context.Context) error {
	w := loop.Worker[string]{
		Name:    m.String(),
		Queue:   m.queue,
		Do:      m.pass,
		Backoff: loop.Backoff{Min: 200 * time.Millisecond, Max: 30 * time.Second},
		Every:   m.deps.Resync,
		Again:   File,
		Log:     m.deps.Log,
	}
	return w.Run(ctx)
}

// Ready implements loop.Task.
func (m *Module) Ready() <-chan struct{} { return m.ready.Done() }

// String implements loop.Task.
func (m *Module) String() string { return "conflist" }

// Waiting says why there is no conflist yet, or why it cannot be kept.
func (m *Module) Waiting() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.held != "":
		return m.held
	case m.node == nil:
		return "the overlay and what policies are about, before the runtime may start pods"
	case m.last.Err != nil:
		return m.last.Err.Error()
	case m.last.Path == "":
		return "the first write"
	}
	return ""
}

func (m *Module) pass(ctx context.Context, _ []string) error {
	m.mu.Lock()
	n, held := m.node, m.held
	before := m.last
	m.mu.Unlock()
	if held != "" {
		// What is in the conflist may be of use again, and pods that are there
		// are deleted by it.
		return m.tell(held + "\n")
	}
	if n == nil {
		return nil
	}
	start := time.Now()
	s := State{Path: before.Path}
	s.Wrote, s.Err = m.write(*n)
	if s.Err == nil {
		s.Err = m.tell("")
	}
	if s.Err == nil {
		s.Path = filepath.Join(m.deps.Config.Dir, File)
		s.Preferred, s.Err = preferred(m.deps.Config.Dir)
		m.ready.Set()
		s.Err = errors.Join(s.Err, m.deps.Announce(ctx))
	}
	s.Took = time.Since(start)
	m.mu.Lock()
	m.last = s
	m.mu.Unlock()
	if !slices.Equal(before.Preferred, s.Preferred) && len(s.Preferred) > 0 {
		m.deps.Log.Warn("the container runtime prefers another network's configuration: unless that delegates to Poplin, remove it, or rename it so that it sorts later", "dir", m.deps.Config.Dir, "files", s.Preferred, "ours", File)
	}
	m.deps.Report(s)
	return s.Err
}

func (m *Module) write(n Node) (changed bool, err error) {
	text, err := compile(m.deps.Config, n)
	if err != nil {
		return false, err
	}
	// The runtime runs as root; nobody else needs to know.
	changed, err = install.File(filepath.Join(m.deps.Config.Dir, File), 0o600, text)
	if err != nil {
		return false, fmt.Errorf("write conflist: %w", err)
	}
	if changed {
		m.deps.Log.Info("wrote the conflist: pods may start on this node", "file", filepath.Join(m.deps.Config.Dir, File), "podCIDRs", n.PodCIDRs, "mtu", n.MTU)
	}
	return changed, nil
}

// tell writes what STATUS answers.
func (m *Module) tell(text string) error {
	path := m.deps.Config.ReadyFile
	if path == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("make directory of the ready file: %w", err)
	}
	if _, err := install.File(path, 0o600, []byte(text)); err != nil {
		return fmt.Errorf("write ready file: %w", err)
	}
	return nil
}

// preferred are the files that a runtime reads before ours: it sorts those
// with these endings by name and takes the first.
func preferred(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("look for other networks: %w", err)
	}
	var list []string
	for _, e := range entries {
		ending := filepath.Ext(e.Name())
		if e.Name() < File && slices.Contains([]string{".conf", ".conflist", ".json"}, ending) {
			list = append(list, e.Name())
		}
	}
	return list, nil
}
