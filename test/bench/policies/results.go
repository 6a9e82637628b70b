package policies

import (
	"fmt"
	"math"
	"time"

	"poplin.dev/poplin/test/bench/change"
	"poplin.dev/poplin/test/bench/report"
)

type results []result

func seconds(d time.Duration) report.Figure { return report.Figure(d.Seconds()) }

func ms(list []time.Duration, q float64) report.Figure {
	return 1000 * seconds(report.Quantile(list, q))
}

// mib makes MiB of the MB that process counts.
func mib(mb float64) report.Figure { return report.Figure(mb * 1e6 / (1 << 20)) }

// memory is what the module takes, at most and after a while.
func (r result) memory() (peak, resting report.Figure) {
	return mib(r.held.Peak - r.bare.Peak), mib(r.held.Now - r.bare.Now)
}

func tables(all results, ways []way) []report.Table {
	labels := []string{"policies x pods"}
	start := report.Table{
		Title: "cold start, nothing in the kernel: seconds to the last transaction; memory of the daemon in MiB, and how much more it is than without policies", Labels: labels,
		Columns: []string{"pure list", "from start", "passes", "CPU", "peak MiB", "MiB at rest", "more, peak", "more, at rest"},
	}
	changed := report.Table{
		Title: "one change, ms", Labels: []string{"policies x pods", "of"},
		Columns: []string{"API call p50", "p99", "event to kernel p50", "p99", "call to kernel p50", "p99"},
	}
	for _, r := range all {
		row := []string{r.size.String()}
		peak, resting := r.memory()
		start.Rows = append(start.Rows, report.Row{Labels: row, Figures: []report.Figure{
			seconds(r.list), seconds(r.start), seconds(r.pass), seconds(r.cold), mib(r.held.Peak), mib(r.held.Now), peak, resting,
		}})
		for _, c := range []struct {
			of string
			change.Times
		}{{"a pod's labels", r.labels}, {"a policy", r.policies}} {
			changed.Rows = append(changed.Rows, report.Row{Labels: []string{row[0], c.of}, Figures: []report.Figure{
				ms(c.API, 0.5), ms(c.API, 0.99), ms(c.Watch, 0.5), ms(c.Watch, 0.99), ms(c.Full, 0.5), ms(c.Full, 0.99),
			}})
		}
	}
	packets := report.Table{
		Title:  "from pod to pod of one node, both isolated both ways: connections, one after the other, and a stream",
		Labels: []string{"in the kernel"}, Columns: []string{"connections per second", "of no table", "p50 us", "p99 us", "Gbit/s", "of no table"},
	}
	for _, w := range ways {
		packets.Rows = append(packets.Rows, report.Row{Labels: []string{w.name}, Figures: []report.Figure{
			1 / seconds(report.Quantile(w.turns, 0.5)), report.Rate(w.turns, ways[0].turns), 1000 * ms(w.took, 0.5), 1000 * ms(w.took, 0.99),
			stream * 8 / 1e9 / seconds(report.Quantile(w.streams, 0.5)), report.Rate(w.streams, ways[0].streams),
		}})
	}
	return []report.Table{start, changed, packets}
}

func verdicts(all results, ways []way) []report.Verdict {
	first, last := all[0], all[len(all)-1]
	none, held := ways[0], ways[len(ways)-1]
	peak, _ := last.memory()
	grown := math.Log(float64(last.size) / float64(first.size))
	exponent := report.Figure(math.Log(last.pass.Seconds()/first.pass.Seconds()) / grown)
	return []report.Verdict{
		report.AtMost(fmt.Sprintf("%s: seconds from the start of the process until all is in the kernel, of which %.2f are the pure list", last.size, last.list.Seconds()), seconds(last.start), 2),
		report.AtMost(fmt.Sprintf("%s: a pod's labels, API call to kernel, ms p99", last.size), ms(last.labels.Full, 0.99), 20),
		report.AtMost(fmt.Sprintf("%s: a policy, API call to kernel, ms p99", last.size), ms(last.policies.Full, 0.99), 100),
		report.AtMost(fmt.Sprintf("%s: MiB that the daemon ever holds more than without policies", last.size), peak, 100),
		report.AtMost(fmt.Sprintf("exponent by which passes of a start grow, %s to %s", first.size, last.size), exponent, 1.2),
		report.AtLeast("connections between isolated pods / without a table", report.Rate(held.turns, none.turns), 0.97),
		report.AtLeast("throughput between isolated pods / without a table", report.Rate(held.streams, none.streams), 0.97),
	}
}
