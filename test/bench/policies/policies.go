// Package policies measures what enforcing policies costs a node: the real
// daemon, with policies and without, against a real API server that holds up to
// a thousand policies and ten thousand pods, a full node's of them on the
// daemon's; and packets between two of its pods, by turns with the table that
// the daemon left and without. Inputs are options and the programs; outputs are
// figures and verdicts. It refuses to let the daemon run beside the packets.
package policies

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"poplin.dev/poplin/test/bench/pair"
	"poplin.dev/poplin/test/bench/plane"
	"poplin.dev/poplin/test/bench/report"
	"poplin.dev/poplin/test/cluster/progress"
	"poplin.dev/poplin/test/cluster/tools"
	"poplin.dev/poplin/test/cni"
)

// Options say how much is measured.
type Options struct {
	// Quick is the small sizes, with few changes.
	Quick bool
}

// size is how many namespaces there are. Each has its policies and its pods.
type size int

const (
	policiesEach = 10
	podsEach     = 100
	// fullNode is how many pods the kubelet has on a node at most.
	fullNode = 110
)

func (s size) policies() int { return policiesEach * int(s) }
func (s size) pods() int     { return podsEach * int(s) }

func (s size) String() string { return fmt.Sprintf("%d x %d", s.policies(), s.pods()) }

func (o Options) sizes() []size {
	if o.Quick {
		return []size{10, 30}
	}
	return []size{10, 30, 100}
}

// changes is how many are made, one by one.
func (o Options) changes() int {
	if o.Quick {
		return 50
	}
	return 300
}

// turns is how often packets go each way.
func (o Options) turns() int {
	if o.Quick {
		return 20
	}
	return 60
}

// lab is the control plane, what it holds, and the daemon's node.
type lab struct {
	plane.Plane
	node *cni.Node
	pair *pair.Pair
	// crowd is how many namespaces there are now; relabelled and rewritten
	// count the changes of pods and of policies.
	crowd                 size
	relabelled, rewritten int
	apps                  map[int]string // of the pod that is relabelled, by namespace
}

const (
	self   = "node-1"
	number = 1
)

func (l *lab) up(ctx context.Context, t tools.Tools) (err error) {
	if err := l.Up(ctx, t); err != nil {
		return err
	}
	if l.node, err = cni.NewNode(filepath.Join(l.Dir, self), l.Dir); err != nil {
		return err
	}
	l.OnClose(l.node.Close)
	if err := l.Join(l.node, number); err != nil {
		return err
	}
	if err := l.Node(ctx, self, number); err != nil {
		return err
	}
	if l.pair, err = pair.New(&l.Plane, l.node, number); err != nil {
		return err
	}
	return os.MkdirAll(filepath.Join(l.Dir, "state"), 0o700)
}

// Measure is the whole of it.
func Measure(ctx context.Context, o Options) (report.Area, error) {
	steps := progress.New(os.Stderr)
	t, err := tools.Programs(ctx, steps)
	if err != nil {
		return report.Area{}, err
	}
	a := report.Area{Name: "Policies", Options: fmt.Sprintf("IPv4, Services on, a namespace for every %d policies and %d pods, %d pods on the node", policiesEach, podsEach, fullNode)}
	l := &lab{apps: map[int]string{}}
	defer l.Close()
	if err := steps.Do("control plane", func() error { return l.up(ctx, t) }); err != nil {
		return a, err
	}
	var all results
	for _, s := range o.sizes() {
		if err := steps.Do("objects of "+s.String(), func() error { return l.become(ctx, s) }); err != nil {
			return a, err
		}
		if err := steps.Do(s.String(), func() error {
			r, err := l.measure(ctx, s, o)
			all = append(all, r)
			return err
		}); err != nil {
			return a, err
		}
	}
	var ways []way
	if err := steps.Do("packets", func() error {
		ways, err = l.packets(o)
		return err
	}); err != nil {
		return a, err
	}
	a.Tables, a.Verdicts = tables(all, ways), verdicts(all, ways)
	return a, nil
}
