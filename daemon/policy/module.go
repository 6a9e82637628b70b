// Package policy has this node enforce policies: it joins the cluster's view
// with the compiler and the kernel. Inputs are a Source (policies, namespaces,
// pods and nodes), the name of this node and what its pods claim; outputs are the table
// `inet poplin-policy`, Events about what a user should mend, and a State
// after every pass. It refuses to change the kernel before the first complete
// view, and never takes anything down because the API server is away.
package policy

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/loop"
	compiler "poplin.dev/poplin/pkg/policy"
	"poplin.dev/poplin/pkg/policy/claims"
)

// The kinds of objects, as the API calls their resources.
const (
	pods       = "pods"
	namespaces = "namespaces"
	policies   = "networkpolicies"
	nodes      = "nodes"

	clusterPolicies = "clusternetworkpolicies"
)

// resources are all of them, in the order in which the table learns of them.
var resources = []string{namespaces, nodes, pods, policies, clusterPolicies}

// Source is where the module reads from.
type Source interface {
	// Complete is false before the first complete view.
	Complete() bool
	// Keys lists the objects of a resource.
	Keys(resource string) []policy.Key
	Pod(key policy.Key) (policy.Pod, bool)
	Namespace(key policy.Key) (policy.Namespace, bool)
	Node(key policy.Key) (policy.Node, bool)
	Policy(key policy.Key) (policy.NetworkPolicy, bool)
	// ClusterPolicy may have to wait for what it names: what it said before
	// stays.
	ClusterPolicy(key policy.Key) (p policy.ClusterPolicy, found, waits bool)
	// Reference points to a policy, which has a namespace or none.
	Reference(key policy.Key) cluster.Reference
	// Subscribe has changed called after every change, with the kind of
	// object and the keys it concerns; none means all of them.
	Subscribe(changed func(resource string, keys []policy.Key))
}

// Config is what the module must know.
type Config struct {
	// Node is this node's name.
	Node string
	// Plain makes a table without owner, as on a kernel that knows none.
	Plain bool
	// Verify is how often everything is compiled, and the kernel read, again.
	Verify time.Duration
	// Keep lets connections that exist go on whatever changes.
	Keep bool
	// LogDrops is how many lines a second the log may get about packets that
	// were dropped; 0 is none, and nothing is asked of the kernel.
	LogDrops int
}

// Deps is all the module uses.
type Deps struct {
	Config Config
	Source Source
	// Event tells users about an object what they should mend.
	Event func(about cluster.Reference, why reason.Reason, message string)
	Log   *slog.Logger
	// Namespaces gets, when it may have changed, whether policies are about
	// pods of each; ahead of the kernel.
	Namespaces func(map[string]bool)
	// Report gets what is true after every pass.
	Report func(State)
	// Dropped gets what was dropped and heard of, Overrun how often the kernel
	// told more than was read. None of these may block.
	Dropped func(Drop)
	Overrun func()
}

// State is what is true after a pass.
type State struct {
	// Took is how long the pass lasted; Full says that it was over everything.
	Took time.Duration
	Full bool
	// Err is what the pass failed with, Waiting what it waits for.
	Err     error
	Waiting string
	// Policies counts those of the cluster, Isolated the pods of this node
	// that they are about, Elements what the kernel holds.
	Policies, Isolated, Elements int
	// Written counts the elements that the pass changed in the kernel. Repairs
	// says that these are what others had changed.
	Written int
	Repairs diff.Cause
	// Findings counts what users should mend.
	Findings int
}

// Module enforces policies on one node; it implements loop.Task.
type Module struct {
	deps  Deps
	ready *loop.Ready
	queue *loop.Queue[key]

	mu     sync.Mutex
	claims *claims.List

	// judging guards table: others ask it while passes change it.
	judging sync.Mutex
	table   *compiler.Table // nil before the first full pass
}

// New makes the module; Run starts it.
func New(deps Deps) *Module {
	return &Module{
		deps: deps, ready: loop.NewReady(), queue: loop.NewQueue[key](holdOff, maxDelay), claims: claims.NewList(deps.Config.Node),
	}
}

// Ready implements loop.Task: all policies were in the kernel once.
func (m *Module) Ready() <-chan struct{} { return m.ready.Done() }

// String implements loop.Task.
func (m *Module) String() string { return "policy" }

// A change after a quiet time goes out at once. Of a stream of them, each
// batch waits for the next, but not for long.
const (
	holdOff  = 3 * time.Millisecond
	maxDelay = 20 * time.Millisecond
)

// key is what may be dirty: an object of a resource; or, without a name, all
// of them; or, without a resource either, what the kernel holds.
type key struct {
	resource string
	policy.Key
}

// Keys that are no object's.
var (
	everything = key{resource: "all"}
	kernel     = key{}
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
	m.deps.Source.Subscribe(func(resource string, list []policy.Key) {
		if len(list) == 0 {
			m.queue.Add(everything)
			return
		}
		keys := make([]key, len(list))
		for i, k := range list {
			keys[i] = key{resource, k}
		}
		m.queue.Add(keys...)
	})
	m.queue.Add(everything)
	beside := []func(context.Context){func(ctx context.Context) {
		// Without events, the next look at everything finds it.
		if err := p.kernel.Watch(ctx, func() { m.queue.Add(kernel) }); err != nil {
			m.deps.Log.Error("changes to the rules of policies are noticed late", "error", err)
		}
	}}
	if p.drops != nil {
		beside = append(beside, p.drops.read, p.drops.tell)
	}
	worker := loop.Worker[key]{
		Name: m.String(), Queue: m.queue, Log: m.deps.Log, Do: p.do,
		Backoff: loop.Backoff{Min: 50 * time.Millisecond, Max: 10 * time.Second},
		Every:   m.deps.Config.Verify, Again: everything,
		Beside: beside,
	}
	return worker.Run(ctx)
}
