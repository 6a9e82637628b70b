// Package overlay measures what the pod network alone costs a node of a large
// cluster: the real daemon against a real API server that holds a thousand and
// five thousand nodes, dual-stack. Inputs are options and the programs; outputs
// are figures and verdicts. It refuses to count what Services cost: they are off.
package overlay

import (
	"context"
	"fmt"
	"os"
	"time"

	"poplin.dev/poplin/test/bench/process"
	"poplin.dev/poplin/test/bench/report"
	"poplin.dev/poplin/test/cluster/progress"
	"poplin.dev/poplin/test/cluster/tools"
)

// Options say how much is measured.
type Options struct {
	// Quick is shorter times at rest, and fewer nodes that join.
	Quick bool
}

// sizes are how many other nodes there are.
var sizes = []int{1, 1000, 5000}

// fullNode is how many pods the kubelet has on a node at most.
const fullNode = 110

// turns is how often the daemon is looked at without pods and on a full node,
// one after the other: what else goes on in a machine then falls on both alike.
const turns = 4

// rest is how long the daemon is left alone in each turn.
func (o Options) rest() time.Duration {
	if o.Quick {
		return 4 * time.Second
	}
	return 6 * time.Second
}

func (o Options) joins() int {
	if o.Quick {
		return 20
	}
	return 60
}

// result is what the daemon did among so many nodes.
type result struct {
	peers int
	// start is from the start of the process until every peer is in the
	// kernel and pods may start; pass is what the passes over the kernel took.
	start, pass time.Duration
	started     process.Usage
	// resting is after a while; idle is the processor time of a second then,
	// without pods and on a full node.
	resting    process.Usage
	idle, pods float64
	join       []time.Duration // from the API call to the route in the kernel
	joinCPU    time.Duration   // of one
}

// Measure is the whole of it.
func Measure(ctx context.Context, o Options) (report.Area, error) {
	steps := progress.New(os.Stderr)
	t, err := tools.Programs(ctx, steps)
	if err != nil {
		return report.Area{}, err
	}
	a := report.Area{Name: "Overlay", Options: fmt.Sprintf("dual-stack, IPv4 underlay, Services off; %d pods on a full node", fullNode)}
	l := &lab{}
	defer l.Close()
	if err := steps.Do("control plane", func() error { return l.up(ctx, t) }); err != nil {
		return a, err
	}
	var all []result
	for _, peers := range sizes {
		if err := steps.Do(fmt.Sprintf("%d nodes", peers), func() error { return l.grow(ctx, peers) }); err != nil {
			return a, err
		}
		if err := steps.Do(fmt.Sprintf("the daemon among %d", peers), func() error {
			r, err := l.measure(ctx, peers, o)
			all = append(all, r)
			return err
		}); err != nil {
			return a, err
		}
	}
	a.Tables, a.Verdicts = tables(all), verdicts(all)
	return a, nil
}

func tables(all []result) []report.Table {
	start := report.Table{
		Title:  "cold start, nothing in the kernel: seconds until every peer is in place; memory of the process in MiB",
		Labels: []string{"nodes"}, Columns: []string{"from start", "passes", "CPU", "MiB", "peak MiB", "MiB at rest"},
	}
	later := report.Table{
		Title:  "afterwards: % of a core at rest; a node that joins, ms",
		Labels: []string{"nodes"}, Columns: []string{"idle", "idle, full node", "call to route p50", "p99", "CPU"},
	}
	for _, r := range all {
		labels := []string{fmt.Sprint(r.peers)}
		start.Rows = append(start.Rows, report.Row{Labels: labels, Figures: []report.Figure{
			seconds(r.start), seconds(r.pass), seconds(r.started.CPU), mib(r.started.Now), mib(r.started.Peak), mib(r.resting.Now),
		}})
		later.Rows = append(later.Rows, report.Row{Labels: labels, Figures: []report.Figure{
			report.Figure(100 * r.idle), report.Figure(100 * r.pods),
			1000 * seconds(report.Quantile(r.join, 0.5)), 1000 * seconds(report.Quantile(r.join, 0.99)), 1000 * seconds(r.joinCPU),
		}})
	}
	return []report.Table{start, later}
}

func verdicts(all []result) []report.Verdict {
	first, some, last := all[0], all[1], all[len(all)-1]
	return []report.Verdict{
		report.AtMost(fmt.Sprintf("exponent by which passes of a start grow, %d to %d peers", some.peers, last.peers),
			report.Exponent(seconds(some.pass), seconds(last.pass), float64(last.peers)/float64(some.peers)), 1.2),
		report.AtMost(fmt.Sprintf("seconds until %d peers are programmed, from the start of the process", last.peers), seconds(last.start), 5),
		report.AtMost(fmt.Sprintf("MiB that the daemon ever holds among %d peers, pod network alone", last.peers), mib(last.started.Peak), 60),
		report.AtMost(fmt.Sprintf("%% of a core that looking after %d pods' settings costs", fullNode), report.Figure(100*(first.pods-first.idle)), 0.2), // where least else happens
	}
}

func seconds(d time.Duration) report.Figure { return report.Figure(d.Seconds()) }

// mib makes MiB of the MB that process counts.
func mib(mb float64) report.Figure { return report.Figure(mb * 1e6 / (1 << 20)) }
