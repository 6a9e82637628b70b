// Package scale measures what a large cluster costs one of its nodes, and what
// all of its nodes cost the API server: the real daemon, with all it does,
// against a real API server that holds 10 to 5,000 other nodes with their pods,
// Services and policies, while kubelets and controllers write as they do in
// life. The other nodes are objects without machines. Inputs are options and
// the programs; outputs are figures and verdicts. It refuses to count what is
// in one API server's cache already: each size has a control plane of its own.
package scale

import (
	"context"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"poplin.dev/poplin/test/bench/report"
	"poplin.dev/poplin/test/bench/scale/simulated"
	"poplin.dev/poplin/test/cluster/progress"
	"poplin.dev/poplin/test/cluster/tools"
)

// Options say how much is measured.
type Options struct {
	// Quick is the small sizes, with shorter times at rest and few changes.
	Quick bool
	// Nodes are sizes instead of ours, separated by commas.
	Nodes string
}

// sizes are how many other nodes there are.
func (o Options) sizes() (list []int, err error) {
	if o.Nodes == "" && o.Quick {
		return []int{10, 100}, nil
	}
	if o.Nodes == "" {
		return []int{10, 100, 1000, simulated.Largest}, nil
	}
	for text := range strings.SplitSeq(o.Nodes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < simulated.NodesPerSpace || n > simulated.Largest || n%simulated.NodesPerSpace != 0 {
			return nil, fmt.Errorf("nodes: %q: want multiples of %d, at most %d, separated by commas", text, simulated.NodesPerSpace, simulated.Largest)
		}
		list = append(list, n)
	}
	return list, nil
}

// rest is how long the daemon is left alone.
func (o Options) rest() time.Duration {
	if o.Quick {
		return 30 * time.Second
	}
	return time.Minute
}

// changes is how many nodes come, move and go.
func (o Options) changes() int {
	if o.Quick {
		return 10
	}
	return 60
}

// crowd is how many daemons' readers start at once, and at which size.
func (o Options) crowd() (size, n int) {
	if o.Quick {
		return 100, 10
	}
	return 1000, 25
}

// Measure is the whole of it.
func Measure(ctx context.Context, o Options) (report.Area, error) {
	sizes, err := o.sizes()
	if err != nil {
		return report.Area{}, err
	}
	steps := progress.New(os.Stderr)
	t, err := tools.Programs(ctx, steps)
	if err != nil {
		return report.Area{}, err
	}
	a := report.Area{Name: "Scale", Options: fmt.Sprintf(
		"dual-stack, IPv4 underlay, Services and policies on; per node %d pods, a lease in %v, a status in %v, a pod replaced in %v; per %d nodes a namespace with a Service of %d endpoints and %d policies",
		simulated.PodsEach, simulated.LeaseEvery, simulated.StatusEvery, simulated.PodEvery, simulated.NodesPerSpace, simulated.Behind, simulated.PoliciesEach)}
	var all []*result
	var many *crowd
	for _, size := range sizes {
		r, readers, err := one(ctx, t, steps, size, o)
		if err != nil {
			return a, fmt.Errorf("%d nodes: %w", size, err)
		}
		all = append(all, r)
		if readers != nil {
			many = readers
		}
	}
	a.Tables, a.Verdicts = tables(all, many), verdicts(all)
	return a, nil
}

// one measures one size.
func one(ctx context.Context, t tools.Tools, steps *progress.Steps, size int, o Options) (r *result, many *crowd, err error) {
	l := &lab{size: size}
	defer l.Close()
	if err := steps.Do("control plane", func() error { return l.up(ctx, t) }); err != nil {
		return nil, nil, err
	}
	if err := steps.Do(fmt.Sprintf("%d nodes", size), func() error { return l.cluster.Make(ctx) }); err != nil {
		return nil, nil, err
	}
	if err := steps.Do(fmt.Sprintf("%d pods", l.cluster.Pods()), func() error { return l.cluster.Crowd(ctx) }); err != nil {
		return nil, nil, err
	}
	if r, err = l.measure(ctx, steps, o); err != nil {
		return nil, nil, err
	}
	at, n := o.crowd()
	if size != at {
		return r, nil, nil
	}
	err = steps.Do(fmt.Sprintf("%d daemons' readers", n), func() error {
		life := l.cluster.Live(ctx)
		c, err := l.readers(ctx, n, o.rest()/2)
		many = &c
		if errLife := life.End(); err == nil {
			err = errLife
		}
		return err
	})
	return r, many, err
}

func (r *result) rested() float64 { return r.ended.at.Sub(r.began.at).Seconds() }

// milli is the thousandths of a core that the daemon uses at rest.
func (r *result) milli() report.Figure {
	return report.Figure(1000 * (r.ended.used.CPU - r.began.used.CPU).Seconds() / r.rested())
}

func (r *result) startBytes() float64 { return float64(r.ready.received - r.first.received) }
func (r *result) bytesPerSecond() float64 {
	return float64(r.ended.received-r.began.received) / r.rested()
}
func (r *result) eventsPerSecond() float64 { return (r.ended.events - r.began.events) / r.rested() }
func (r *result) watches() float64         { return r.ready.watches - r.first.watches }

func tables(all []*result, many *crowd) []report.Table {
	list := []report.Table{
		startTable("cold start of the daemon, until all is in the kernel and pods may start", all),
		restTable("at rest, beside the cluster's churn", all),
		changeTable(all), clusterTable(all),
	}
	if many != nil {
		list = append(list, crowdTable(*many))
	}
	return list
}

func rows(all []*result, figures func(*result) []report.Figure) (list []report.Row) {
	for _, r := range all {
		list = append(list, report.Row{Labels: []string{fmt.Sprint(r.size)}, Figures: figures(r)})
	}
	return list
}

// both has a row for the daemon with policies, and one for that without.
func both(all []*result, figures func(*result) []report.Figure) (list []report.Row) {
	for _, r := range all {
		list = append(list,
			report.Row{Labels: []string{fmt.Sprint(r.size), "on"}, Figures: figures(r)},
			report.Row{Labels: []string{fmt.Sprint(r.size), "off"}, Figures: figures(r.bare)})
	}
	return list
}

func startTable(title string, all []*result) report.Table {
	return report.Table{
		Title: title, Labels: []string{"nodes", "policies"},
		Columns: []string{"s", "CPU s", "peak MiB", "MiB received", "requests", "watches that stay"},
		Rows: both(all, func(r *result) []report.Figure {
			return []report.Figure{seconds(r.start), seconds(r.ready.used.CPU), mib(1e6 * r.ready.used.Peak),
				mib(r.startBytes()), report.Figure(r.ready.requests), report.Figure(r.watches())}
		}),
	}
}

func restTable(title string, all []*result) report.Table {
	return report.Table{
		Title: title, Labels: []string{"nodes", "policies"},
		Columns: []string{"MiB", "milli-cores", "events/s", "KiB/s received", "requests/min", "writes/min"},
		Rows: both(all, func(r *result) []report.Figure {
			return []report.Figure{mib(1e6 * r.ended.used.Now), r.milli(), report.Figure(r.eventsPerSecond()),
				report.Figure(r.bytesPerSecond() / 1024), report.Figure(60 * (r.ended.requests - r.began.requests) / r.rested()),
				report.Figure(60 * (r.ended.writes - r.began.writes) / r.rested())}
		}),
	}
}

func changeTable(all []*result) report.Table {
	quantiles := func(list []time.Duration) []report.Figure { return []report.Figure{ms(list, 0.5), ms(list, 0.99)} }
	return report.Table{
		Title:  "from the API call to the last entry in the kernel (routes, neighbours, forwarding), ms; churn that could not be made in time, %",
		Labels: []string{"nodes"}, Columns: []string{"node comes p50", "p99", "VTEP moves p50", "p99", "node goes p50", "p99", "late"},
		Rows: rows(all, func(r *result) []report.Figure {
			return append(append(append(quantiles(r.came), quantiles(r.moved)...), quantiles(r.went)...), report.Figure(100*r.late))
		}),
	}
}

// clusterTable is what all nodes together ask of the API server, computed from
// what one does.
func clusterTable(all []*result) report.Table {
	return report.Table{
		Title:  "all nodes together, one node's figures multiplied; the API server's memory with one daemon",
		Labels: []string{"nodes", "policies"}, Columns: []string{"GiB if all start", "requests", "watches", "events/s at rest", "MiB/s at rest", "API server MiB"},
		Rows: both(all, func(r *result) []report.Figure {
			n, server := float64(r.size+1), mib(1e6*r.server.Now)
			if r.bare == nil {
				server = report.Missing
			}
			return []report.Figure{mib(n * r.startBytes() / 1024), report.Figure(n * r.ready.requests), report.Figure(n * r.watches()),
				report.Figure(n * r.eventsPerSecond()), mib(n * r.bytesPerSecond()), server}
		}),
	}
}

// crowdTable is what so many daemons did in fact, at one size.
func crowdTable(m crowd) report.Table {
	n := float64(m.n)
	return report.Table{
		Title:  fmt.Sprintf("readers of %d daemons that start in one instant, among %d nodes; for each of them", m.n, m.size),
		Labels: []string{""}, Columns: []string{"s for all", "API server CPU s", "MiB received", "requests", "watches that stay", "events/s at rest", "KiB/s at rest", "API server MiB for all", "its milli-cores for all"},
		Rows: []report.Row{{Labels: []string{"measured"}, Figures: []report.Figure{
			seconds(m.took), seconds(m.cpu) / report.Figure(n), mib(float64(m.received) / n), report.Figure(m.requests / n),
			report.Figure(m.watches / n), report.Figure(m.events / n), report.Figure(m.rate / n / 1024), mib(1e6 * m.memory), report.Figure(1000 * m.rest),
		}}},
	}
}

func verdicts(all []*result) []report.Verdict {
	last := all[len(all)-1]
	list := []report.Verdict{
		report.AtMost("writes of a node in a minute at rest", report.Figure(60*(last.ended.writes-last.began.writes)/last.rested()), 0),
		report.AtMost(fmt.Sprintf("ms from a new node's object to all its entries in the kernel among %d, p99", last.size), ms(last.came, 0.99), 1000),
	}
	if len(all) > 1 {
		before := all[len(all)-2]
		from := func(what string) string {
			return fmt.Sprintf("growth exponent of %s from %d nodes to %d", what, before.size, last.size)
		}
		list = append(list,
			report.AtMost(from("memory at rest"), exponent(before, last, func(r *result) float64 { return r.ended.used.Now }), 1),
			report.AtMost(from("a start's traffic"), exponent(before, last, (*result).startBytes), 1.05),
			report.AtMost(from("a new node's way into the kernel"), exponent(before, last, func(r *result) float64 { return float64(report.Quantile(r.came, 0.5)) }), 1))
	}
	if last.size == simulated.Largest {
		list = append(list,
			report.AtMost(fmt.Sprintf("MiB at rest among %d nodes with %d pods", last.size, simulated.PodsEach*(last.size+1)), mib(1e6*last.ended.used.Now), 300),
			report.AtMost(fmt.Sprintf("MiB at rest among %d nodes without policies", last.size), mib(1e6*last.bare.ended.used.Now), 100))
	}
	return list
}

// exponent is by what power of the number of nodes something grows.
func exponent(a, b *result, of func(*result) float64) report.Figure {
	return report.Figure(math.Log(of(b)/of(a)) / math.Log(float64(b.size)/float64(a.size)))
}

func seconds(d time.Duration) report.Figure { return report.Figure(d.Seconds()) }

func mib(bytes float64) report.Figure { return report.Figure(bytes / (1 << 20)) }

func ms(list []time.Duration, q float64) report.Figure {
	return 1000 * seconds(report.Quantile(list, q))
}
