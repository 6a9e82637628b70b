// Package hostports puts host ports back that something has taken out of the
// kernel, and ends those whose pod is gone. Input is the directory in which
// the CNI plugin saves them; output is its table in the kernel, written by the
// plugin's own code, so that the two cannot differ. It refuses to add a host
// port of its own, and where there never was one it does nothing.
package hostports

import (
	"context"
	"log/slog"
	"time"

	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/plugins/hostport"
	"poplin.dev/poplin/plugins/hostport/apply"
)

// Deps is all the module uses.
type Deps struct {
	// Dir is where the plugin saves.
	Dir string
	// Report gets how long a pass lasted and what it failed with; it must not
	// block.
	Report func(took time.Duration, err error)
	Log    *slog.Logger
	// Resync is how often files and kernel are compared without an event.
	Resync time.Duration
}

// Changes gather for holdOff, so that a flush, which is many events, costs one
// pass.
const (
	holdOff  = 10 * time.Millisecond
	maxDelay = 50 * time.Millisecond
)

// table is the only thing that can be dirty: it is written as a whole.
const table = "table"

// Module keeps the host ports; it implements loop.Task.
type Module struct {
	deps    Deps
	ready   *loop.Ready
	damaged string // what was last said of files that cannot be read
}

// New makes the module; Run starts it.
func New(deps Deps) *Module { return &Module{deps: deps, ready: loop.NewReady()} }

// Ready implements loop.Task: what is saved is in the kernel.
func (m *Module) Ready() <-chan struct{} { return m.ready.Done() }

// String implements loop.Task.
func (m *Module) String() string { return "hostports" }

// Run implements loop.Task. All work on the kernel happens in the network
// namespace of the calling thread, if the goroutine is locked to one.
func (m *Module) Run(ctx context.Context) error {
	kernel, err := apply.Open()
	if err != nil {
		return err
	}
	defer kernel.Close()
	events, err := kernel.Subscribe()
	if err != nil {
		return err
	}
	queue := loop.NewQueue[string](holdOff, maxDelay)
	queue.Add(table)
	worker := loop.Worker[string]{
		Name: m.String(), Queue: queue, Log: m.deps.Log,
		Do:      func(context.Context, []string) error { return m.pass(kernel) },
		Backoff: loop.Backoff{Min: 50 * time.Millisecond, Max: 30 * time.Second},
		Every:   m.deps.Resync, Again: table,
		Beside: []func(context.Context){func(ctx context.Context) {
			// Without events, the next look at everything finds it.
			if err := events.Run(ctx, func() { queue.Add(table) }); err != nil {
				m.deps.Log.Error("changes to host ports are noticed late", "error", err)
			}
		}},
	}
	return worker.Run(ctx)
}

func (m *Module) pass(kernel *apply.Kernel) error {
	start := time.Now()
	damaged, err := hostport.Sync(m.deps.Dir, kernel)
	text := ""
	if damaged != nil {
		text = damaged.Error()
	}
	if text != m.damaged && text != "" {
		m.deps.Log.Warn("some host ports are not served", "error", damaged)
	}
	m.damaged = text
	if err == nil {
		m.ready.Set()
	}
	m.deps.Report(time.Since(start), err)
	return err
}
