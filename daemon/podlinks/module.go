// Package podlinks puts the node's ends of pods' links right when somebody has
// taken one down, or a pod's route or neighbour entry away. Inputs are the
// container runtime's list of finished attachments and the kernel's events;
// output is what the CNI plugin made, made again by the plugin's own code. It
// refuses to touch what is inside of pods, and a link that the runtime's list
// does not have: its ADD or DEL may be at work.
package podlinks

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/apply/sandbox"
	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/plugins/poplin/apply"
	"poplin.dev/poplin/plugins/poplin/plan"
)

// Deps is all the module uses.
type Deps struct {
	// Network is the name of the network in its conflist, Cache where the
	// runtime keeps its attachments; empty is the usual place.
	Network, Cache string
	// Addresses are the node's own, which routes to pods have as their source.
	Addresses func() []netip.Addr
	// Report gets how long a pass lasted, how it came to be, how many things it
	// put right and what it failed with; it must not block.
	Report func(took time.Duration, cause diff.Cause, repaired int, err error)
	Log    *slog.Logger
	// Resync is how often all links are looked at without an event.
	Resync time.Duration
}

// A pod's end comes with several events, and many pods with many.
const (
	holdOff  = 20 * time.Millisecond
	maxDelay = 200 * time.Millisecond
)

// all is the key of every link; others are indexes of devices.
const all int32 = 0

// Module keeps the links; it implements loop.Task.
type Module struct {
	deps  Deps
	ready *loop.Ready
	cache sandbox.Cache
}

// New makes the module; Run starts it.
func New(deps Deps) *Module {
	if deps.Cache == "" {
		deps.Cache = sandbox.CacheDir
	}
	return &Module{deps: deps, ready: loop.NewReady(), cache: sandbox.Cache{Dir: deps.Cache}}
}

// Ready implements loop.Task: all links were looked at once.
func (m *Module) Ready() <-chan struct{} { return m.ready.Done() }

// String implements loop.Task.
func (m *Module) String() string { return "podlinks" }

// Run implements loop.Task, in the network namespace of the calling thread if
// the goroutine is locked to one.
func (m *Module) Run(ctx context.Context) error {
	keeper, err := apply.OpenKeeper()
	if err != nil {
		return err
	}
	defer keeper.Close()
	events, err := apply.Subscribe()
	if err != nil {
		return err
	}
	queue := loop.NewQueue[int32](holdOff, maxDelay)
	queue.Add(all)
	worker := loop.Worker[int32]{
		Name: m.String(), Queue: queue, Log: m.deps.Log,
		Do:      func(_ context.Context, dirty []int32) error { return m.pass(keeper, dirty) },
		Backoff: loop.Backoff{Min: 50 * time.Millisecond, Max: 30 * time.Second},
		Every:   m.deps.Resync, Again: all,
		Beside: []func(context.Context){func(ctx context.Context) {
			// Without events, the next look at everything finds it.
			if err := events.Run(ctx, func(index int32) { queue.Add(index) }); err != nil {
				m.deps.Log.Error("changes to pods' links are noticed late", "error", err)
			}
		}},
	}
	return worker.Run(ctx)
}

// pass looks at the links that are dirty. Devices that are no pods' links cost
// one question to the kernel each.
func (m *Module) pass(keeper *apply.Keeper, dirty []int32) error {
	start, cause := time.Now(), diff.Event
	var only []string
	if slices.Contains(dirty, all) {
		cause = diff.Look
	} else {
		for _, index := range dirty {
			name, err := keeper.Name(index)
			if err != nil {
				return err
			}
			if name != "" {
				only = append(only, name)
			}
		}
		if len(only) == 0 {
			return nil
		}
	}
	repaired, err := m.mend(keeper, func(link string) bool { return cause == diff.Look || slices.Contains(only, link) })
	if err == nil {
		m.ready.Set()
	}
	m.deps.Report(time.Since(start), cause, repaired, err)
	return err
}

// mend goes on past a link that it cannot put right.
func (m *Module) mend(keeper *apply.Keeper, which func(link string) bool) (repaired int, err error) {
	known, err := m.cache.Read()
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil // no pod was ever started
	}
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, a := range known.Attachments {
		p := m.plan(a)
		if a.Network != m.deps.Network || !which(p.Host.Name) {
			continue
		}
		did, err := keeper.Mend(p)
		errs = append(errs, err)
		if repaired += len(did); len(did) > 0 {
			m.deps.Log.Info("restored the node's end of a pod's link", "pod", a.Pod, "link", p.Host.Name, "did", did)
		}
	}
	return repaired, errors.Join(errs...)
}

// plan is what the plugin planned for the host's end of an attachment.
func (m *Module) plan(a sandbox.Attachment) plan.Plan {
	p := plan.Plan{Host: plan.Link{Name: plan.HostName(a.ContainerID, a.IfName)}}
	if mac, err := net.ParseMAC(a.MAC); err == nil && len(mac) == len(p.Pod.MAC) {
		p.Pod.MAC = plan.MAC(mac)
	}
	own := m.deps.Addresses()
	for _, addr := range a.Addrs {
		p.Addresses = append(p.Addresses, plan.Address{Addr: addr, Source: plan.Source(own, addr)})
	}
	return p
}
