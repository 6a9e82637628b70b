// Package services makes this node serve Services: it joins the cluster's
// view with the compiler and the kernel. Inputs are a Source (Services and
// their endpoints) and a Cluster (this node and the others); outputs are the
// table `inet poplin-services`, the ends of stale UDP flows, health-check
// ports, Events about what a user should mend, and a State after every pass.
// It refuses to change the kernel before the first complete view, and never
// takes anything down because the API server is away.
package services

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/apply/sysctl"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/pkg/services"
)

// Source is where the module reads Services from.
type Source interface {
	// Complete is false before the first complete view.
	Complete() bool
	Services() []service.Service
	Service(key service.Key) (service.Service, bool)
	Slices(key service.Key) []service.Slice
	// Ranges are those that cluster addresses come from.
	Ranges() []netip.Prefix
	// Triggered is when the oldest change of a Service's endpoints began that
	// was not asked for yet; zero if there is none.
	Triggered(key service.Key) time.Time
	// Reference points to a Service, or to an EndpointSlice.
	Reference(key service.Key, slice bool) cluster.Reference
	// Subscribe has changed called after every change, with the kind of
	// object and the Services it concerns; none means all of them.
	Subscribe(changed func(resource string, keys []service.Key))
}

// Cluster is where it learns of nodes.
type Cluster interface {
	Self() (self cluster.Self, ok bool)
	Nodes() (nodes []cluster.Node, ok bool)
	Subscribe(changed func())
}

// Health serves health-check ports. It must not block.
type Health interface {
	// Set says what a Service's port answers from now on; nil: there is none.
	Set(key service.Key, h *services.Health)
}

// Config is what an administrator may choose.
type Config struct {
	// NodePorts are ranges of this node's addresses on which node ports
	// answer; empty means the Node's primary ones.
	NodePorts []netip.Prefix
	// ExternalIPs are the ranges in which spec.externalIPs may lie.
	ExternalIPs []netip.Prefix
	// OverlayPort is the UDP port of the overlay.
	OverlayPort uint16
	// Conntrack is how connections are tracked, SysctlRoot where /proc/sys/net
	// is found.
	Conntrack  Conntrack
	SysctlRoot string
	// Plain makes a table without owner, as on a kernel that knows none.
	Plain bool
	// Verify is how often everything is looked at without a change.
	Verify time.Duration
}

// Deps is all the module uses.
type Deps struct {
	Config  Config
	Source  Source
	Cluster Cluster
	Health  Health
	// Note is told of each change of a setting of the node before it is made;
	// it may be nil.
	Note func(sysctl.Change)
	// Event tells users about an object what they should mend.
	Event func(about cluster.Reference, why reason.Reason, message string)
	Log   *slog.Logger
	// Report gets what is true after every pass, and Changed how many changes
	// of a resource came in. None of these functions may block.
	Report  func(State)
	Changed func(resource string, n int)
}

// State is what is true after a pass.
type State struct {
	// Took is how long the pass lasted; Full says that it was over everything.
	Took time.Duration
	Full bool
	// Err is what the pass failed with, Waiting what it waits for.
	Err     error
	Waiting string
	// Services counts those of the cluster, Elements what the kernel holds.
	Services, Elements int
	// Written counts the elements that the pass changed in the kernel, Ended
	// the UDP flows. Repairs says that Written is what others had changed.
	Written, Ended int
	Repairs        diff.Cause
	// Programmed is how long each change of endpoints took from its cause.
	Programmed []time.Duration
	// Starved counts service ports without an endpoint on this node.
	Starved services.Starved
	// Findings counts what users should mend, Problems what administrators
	// should.
	Findings, Problems int
}

// Module serves the Services of one node; it implements loop.Task.
type Module struct {
	deps  Deps
	ready *loop.Ready
	queue *loop.Queue[key]

	mu sync.Mutex
	// pending is when the oldest change came in that is not in the kernel;
	// updated when everything last was.
	pending, updated time.Time
	node             services.Node // zero before the first pass
	alone            bool          // what a kube-proxy left is to be removed
}

// New makes the module; Run starts it.
func New(deps Deps) *Module {
	return &Module{deps: deps, ready: loop.NewReady(), queue: loop.NewQueue[key](holdOff, maxDelay)}
}

// Ready implements loop.Task: all Services were in the kernel once.
func (m *Module) Ready() <-chan struct{} { return m.ready.Done() }

// String implements loop.Task.
func (m *Module) String() string { return "services" }

// Healthy says since when a change has been waiting for the kernel, zero if
// none is, and when everything was last in place.
func (m *Module) Healthy() (pending, updated time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pending, m.updated
}

// SetAlone says that no kube-proxy runs on this node now: what one left goes,
// once Services are in place.
func (m *Module) SetAlone() {
	m.mu.Lock()
	m.alone = true
	m.mu.Unlock()
	m.queue.Add(key{what: alone})
}

// takeAlone says, once, what SetAlone said: a kube-proxy that is started later
// keeps what it makes.
func (m *Module) takeAlone() (alone bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	alone, m.alone = m.alone, false
	return alone
}

// NodePortAddresses are where node ports answer.
func (m *Module) NodePortAddresses() []netip.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node.NodePortAddresses
}

// currentNode is the node as the last pass had it, if there was one.
func (m *Module) currentNode() (node services.Node, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node, m.node.Name != ""
}

func (m *Module) setNode(node services.Node) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.node = node
}

// changed notes that something waits.
func (m *Module) changed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pending.IsZero() {
		m.pending = time.Now()
	}
}

// begin starts a pass; settled says whether what was pending then is in the
// kernel now.
func (m *Module) begin() (settled func(ok bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before := m.pending
	m.pending = time.Time{}
	return func(ok bool) {
		m.mu.Lock()
		defer m.mu.Unlock()
		switch {
		case ok:
			m.updated = time.Now()
		case !before.IsZero():
			m.pending = before
		}
	}
}

// A change after a quiet time goes out at once. Of a stream of them, each
// batch waits for the next, but not for long.
const (
	holdOff  = 3 * time.Millisecond
	maxDelay = 20 * time.Millisecond
)

// key is what may be dirty: a Service, or something larger.
type key struct {
	service.Key
	what what
}

type what int

const (
	one     what = iota // the Service
	nodes               // this node, or others
	all                 // everything
	unsaid              // it is time to look at what nobody tells of
	kernel              // somebody changed our table
	flowing             // UDP flows may have become stale
	alone               // kube-proxy has gone
)

// Run implements loop.Task. All work on the kernel happens on the calling
// goroutine, and so in the network namespace of its thread if it is locked to
// one.
func (m *Module) Run(ctx context.Context) error {
	p, err := open(m)
	if err != nil {
		return err
	}
	defer p.close()
	m.deps.Source.Subscribe(func(resource string, list []service.Key) {
		m.changed()
		m.deps.Changed(resource, max(len(list), 1))
		if len(list) == 0 {
			m.queue.Add(key{what: all})
			return
		}
		keys := make([]key, len(list))
		for i, k := range list {
			keys[i].Key = k
		}
		m.queue.Add(keys...)
	})
	m.deps.Cluster.Subscribe(func() { m.queue.Add(key{what: nodes}) })
	m.queue.Add(key{what: all})
	worker := loop.Worker[key]{
		Name: m.String(), Queue: m.queue, Log: m.deps.Log, Do: p.do,
		Backoff: loop.Backoff{Min: 50 * time.Millisecond, Max: 10 * time.Second},
		Every:   m.deps.Config.Verify, Again: key{what: unsaid},
		Beside: []func(context.Context){p.verify, func(ctx context.Context) {
			// Without events, the next look at everything finds it.
			if err := p.kernel.Watch(ctx, func() { m.queue.Add(key{what: kernel}) }); err != nil {
				m.deps.Log.Error("changes to the rules of Services are noticed late", "error", err)
			}
		}},
	}
	return worker.Run(ctx)
}
