// Package ipam looks after the node's addresses from outside of the CNI plugin.
// Inputs are the plugin's files, the kernel's links and the runtime's list of
// attachments; outputs are orphans released, and a report for people. It refuses
// to take anything that may be somebody's: an attachment is an orphan when the
// runtime's list, which must be there, does not have its container, no ADD of it
// runs, and no finished link of it exists, twice and for a grace time, and once
// more under the lock that every ADD takes.
package ipam

import (
	"context"
	"fmt"
	"log/slog"
	"math/big"
	"net/netip"
	"os"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/apply/sandbox"
	"poplin.dev/poplin/pkg/loop"
	limits "poplin.dev/poplin/plugins/bandwidth/apply"
	"poplin.dev/poplin/plugins/hostlocal"
	"poplin.dev/poplin/plugins/hostlocal/audit"
	"poplin.dev/poplin/plugins/hostlocal/store"
	"poplin.dev/poplin/plugins/poplin/apply"
	"poplin.dev/poplin/plugins/poplin/plan"
)

// Deps is all the module uses.
type Deps struct {
	// Network is the network's name, DataDir where host-local keeps its
	// networks, Cache where the runtime keeps its attachments; each is the
	// usual place if it is empty.
	Network, DataDir, Cache string
	// Conflist says which ranges the node has; without the file, nobody knows
	// how many addresses are free.
	Conflist string
	// Every is how often to look; Grace is how long an orphan must have been
	// one.
	Every, Grace time.Duration
	// Report gets how long a pass lasted and what it failed with, Usage for each
	// range its first address, and how many of its addresses are taken, and free.
	// Neither may block.
	Report func(took time.Duration, err error)
	Usage  func(first netip.Addr, taken, free float64)
	Log    *slog.Logger
}

// Module releases orphans; it implements loop.Task.
type Module struct {
	deps  Deps
	ready *loop.Ready
	// since is when each orphan was seen first.
	since map[store.Owner]time.Time
}

// New makes the module; Run starts it.
func New(deps Deps) *Module {
	return &Module{deps: deps, ready: loop.NewReady(), since: map[store.Owner]time.Time{}}
}

// Ready implements loop.Task: there is nothing to wait for.
func (m *Module) Ready() <-chan struct{} { return m.ready.Done() }

// String implements loop.Task.
func (m *Module) String() string { return "ipam" }

// look is the only thing there is to do.
const look = "look"

// Run implements loop.Task, in the network namespace of the calling thread if
// the goroutine is locked to one.
func (m *Module) Run(ctx context.Context) error {
	m.ready.Set()
	queue := loop.NewQueue[string](time.Millisecond, time.Millisecond)
	queue.Add(look)
	w := loop.Worker[string]{
		Name: m.String(), Queue: queue, Log: m.deps.Log,
		Do:      func(context.Context, []string) error { return m.pass() },
		Backoff: loop.Backoff{Min: time.Second, Max: time.Minute},
		Every:   m.deps.Every, Again: look,
	}
	return w.Run(ctx)
}

func (m *Module) pass() error {
	start := time.Now()
	err := m.collect(start)
	m.deps.Report(time.Since(start), err)
	return err
}

func (m *Module) collect(now time.Time) error {
	network, err := files.Named(m.deps.DataDir, m.deps.Network)
	if err != nil {
		return err
	}
	found, err := network.Store.Survey()
	if err != nil {
		return fmt.Errorf("list reservations: %w", err)
	}
	m.usage(found)
	seen := map[store.Owner]time.Time{}
	for _, r := range found.Reservations {
		if !r.Ours || r.Busy {
			continue
		}
		gone, err := m.gone(r.Owner)
		if err != nil {
			return err
		}
		if !gone {
			continue
		}
		first, again := m.since[r.Owner]
		if !again {
			first = now
		}
		if seen[r.Owner] = first; !again || now.Sub(first) < m.deps.Grace {
			continue
		}
		if err := m.release(network.Store, r); err != nil {
			return err
		}
		delete(seen, r.Owner)
	}
	m.since = seen
	// Host ports of links that are gone are ended by the module that keeps
	// host ports.
	return limits.Sync()
}

// usage counts what is taken, and free.
func (m *Module) usage(found store.Survey) {
	text, err := os.ReadFile(m.deps.Conflist)
	if err != nil {
		return
	}
	network, err := files.Conflist(text)
	if err != nil {
		return
	}
	var held []netip.Addr
	for _, r := range found.Reservations {
		held = append(held, r.Addrs...)
	}
	for _, set := range network.Sets {
		size, taken := audit.Usage(set, held)
		free, _ := new(big.Float).SetInt(size.Sub(size, big.NewInt(int64(taken)))).Float64()
		m.deps.Usage(set[0].First, float64(taken), free)
	}
}

// gone says that an attachment is nobody's. A link without alias is of an ADD
// that was killed half-way.
func (m *Module) gone(o store.Owner) (bool, error) {
	known, err := sandbox.Read(m.cache())
	if err != nil || known.Knows(o.ContainerID) {
		return false, err
	}
	alias, linked, err := apply.Alias(plan.HostName(o.ContainerID, o.IfName))
	return err == nil && (!linked || alias == ""), err
}

func (m *Module) release(s *store.Store, r store.Reservation) error {
	released, err := s.Reclaim(r.Owner, func() (bool, error) {
		gone, err := m.gone(r.Owner)
		if gone && err == nil {
			// The link goes first, as ever: its address must not be given away
			// while it leads somewhere.
			err = apply.Del(plan.HostName(r.Owner.ContainerID, r.Owner.IfName))
		}
		return gone, err
	})
	if err != nil {
		return fmt.Errorf("release addresses of container %s: %w", r.Owner.ContainerID, err)
	}
	if released {
		m.deps.Log.Warn("released addresses of a container that is gone and was not deleted", "container", r.Owner.ContainerID,
			"interface", r.Owner.IfName, "addresses", strings.Trim(fmt.Sprint(r.Addrs), "[]"))
	}
	return nil
}

func (m *Module) cache() string {
	if m.deps.Cache == "" {
		return sandbox.CacheDir
	}
	return m.deps.Cache
}

// files is the IPAM as this package uses it. What it would warn of, the report
// names.
var files = hostlocal.Plugin{Kernel: apply.Kernel{}, Warn: func(string) {}}
