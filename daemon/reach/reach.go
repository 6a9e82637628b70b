// Package reach sends packets of its own over the data path that pods use, and
// says whether it works. Inputs are the ways to the other nodes; outputs are who
// answers, and a verdict on this node. It refuses to blame this node for another
// one: one peer that is silent is that peer's affair, and only where this node's
// own kernel does not let a packet go, or none of several peers answers, the
// fault is here. It tells nobody to do anything: what it finds is readiness.
package reach

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"poplin.dev/poplin/pkg/apply/probe"
	"poplin.dev/poplin/pkg/loop"
)

// Way is one to another node: addresses of both ends inside the pod network.
type Way struct {
	Node     string
	From, To netip.Addr
}

// Deps is all the module uses.
type Deps struct {
	// Report gets what is true after every round; it must not block.
	Report func(State)
	Log    *slog.Logger
	// Every is how often a round is due.
	Every time.Duration
}

// State is what is true after a round.
type State struct {
	// Ways counts the nodes that there is a way to, Silent are those of them
	// that did not answer when they were last asked.
	Ways   int
	Silent []string
	// Problem says why the data path of this node does not work.
	Problem string
}

const (
	// batch bounds a round: the kernel's limits for answers, and 5,000 nodes
	// that all ask, are to be felt by nobody.
	batch = 16
	// few silent peers may be down; that all of more than that are is not
	// likely.
	few = 1
)

// round is the only thing there is to do.
const round = "round"

// Module asks; it implements loop.Task.
type Module struct {
	deps  Deps
	queue *loop.Queue[string]
	ready *loop.Ready

	mu   sync.Mutex // guards the following
	ways map[string]Way
	last State
	past bool // there was a round

	// of the worker: who answered when last asked, who was asked last, and when
	// to ask again without an answer
	answers map[string]bool
	cursor  string
	again   loop.Backoff
}

// New makes the module; Run starts it.
func New(deps Deps) *Module {
	return &Module{
		deps: deps, queue: loop.NewQueue[string](time.Second, 5*time.Second), ready: loop.NewReady(),
		answers: map[string]bool{}, again: loop.Backoff{Min: time.Second, Max: deps.Every},
	}
}

// Set gives the ways that there are now.
func (m *Module) Set(ways []Way) {
	next := make(map[string]Way, len(ways))
	for _, w := range ways {
		next[w.Node] = w
	}
	m.mu.Lock()
	changed := m.ways == nil || !maps.Equal(m.ways, next)
	m.ways = next
	m.mu.Unlock()
	if changed {
		m.queue.Add(round)
	}
}

// Ready implements loop.Task: there was a round that this node passed.
func (m *Module) Ready() <-chan struct{} { return m.ready.Done() }

// String implements loop.Task.
func (m *Module) String() string { return "data path" }

// Waiting says what is wrong with the data path.
func (m *Module) Waiting() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.past {
		return "the first packets to other nodes"
	}
	return m.last.Problem
}

// State is what the last round found.
func (m *Module) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// Run implements loop.Task. Sockets are opened in the network namespace of the
// calling thread, if the goroutine is locked to one.
func (m *Module) Run(ctx context.Context) error {
	w := loop.Worker[string]{
		Name: m.String(), Queue: m.queue, Log: m.deps.Log, Every: m.deps.Every, Again: round,
		Do: func(ctx context.Context, _ []string) error { m.round(ctx); return nil },
	}
	return w.Run(ctx)
}

func (m *Module) round(ctx context.Context) {
	m.mu.Lock()
	ways, known := maps.Clone(m.ways), m.ways != nil
	before := m.last.Problem
	m.mu.Unlock()
	if !known {
		return
	}
	maps.DeleteFunc(m.answers, func(node string, _ bool) bool { _, there := ways[node]; return !there })
	err := m.ask(ctx, m.next(ways))
	if ctx.Err() != nil {
		return
	}
	now := State{Ways: len(ways), Problem: judge(m.answers, err)}
	for _, node := range slices.Sorted(maps.Keys(m.answers)) {
		if !m.answers[node] {
			now.Silent = append(now.Silent, node)
		}
	}
	m.mu.Lock()
	m.last, m.past = now, true
	m.mu.Unlock()
	if now.Problem == "" {
		m.again.Reset()
		m.ready.Set()
	} else {
		time.AfterFunc(m.again.Next(), func() { m.queue.Add(round) })
	}
	switch {
	case now.Problem == "" && before != "":
		m.deps.Log.Info("the pod network works again")
	case now.Problem != "" && before == "":
		m.deps.Log.Warn("the pod network does not work on this node", "problem", now.Problem)
	}
	m.deps.Report(now)
}

// next are the nodes whose turn it is: those that were silent, and of the others
// the ones that follow by name.
func (m *Module) next(ways map[string]Way) (list []Way) {
	var rest []string
	for _, node := range slices.Sorted(maps.Keys(ways)) {
		if answered, asked := m.answers[node]; asked && !answered && len(list) < batch/2 {
			list = append(list, ways[node])
		} else {
			rest = append(rest, node)
		}
	}
	first, _ := slices.BinarySearch(rest, m.cursor+"\x00")
	for i := range rest {
		if len(list) == batch {
			break
		}
		m.cursor = rest[(first+i)%len(rest)]
		list = append(list, ways[m.cursor])
	}
	return list
}

// ask asks all of them at once. The error is the first of this node's own.
func (m *Module) ask(ctx context.Context, list []Way) (failed error) {
	var (
		all sync.WaitGroup
		mu  sync.Mutex
	)
	note := func(node string, answered bool, err error) {
		mu.Lock()
		defer mu.Unlock()
		m.answers[node] = answered
		if err != nil && failed == nil {
			failed = fmt.Errorf("node %s: %w", node, err)
		}
	}
	for _, w := range list {
		e, err := probe.NewEcho(w.From, w.To)
		if err != nil {
			note(w.Node, false, err)
			continue
		}
		all.Go(func() {
			answered, err := e.Run(ctx)
			note(w.Node, answered, err)
		})
	}
	all.Wait()
	return failed
}

// judge says what is wrong with this node.
func judge(answers map[string]bool, err error) string {
	if err != nil {
		return "this node to let packets go into the pod network: " + err.Error()
	}
	for _, answered := range answers {
		if answered {
			return ""
		}
	}
	if len(answers) > few {
		return fmt.Sprintf("an answer through the pod network: none of %d other nodes gives one", len(answers))
	}
	return ""
}
