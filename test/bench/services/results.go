package services

import (
	"fmt"
	"slices"
	"time"

	"poplin.dev/poplin/test/bench/report"
)

type results []result

func seconds(d time.Duration) report.Figure { return report.Figure(d.Seconds()) }

func ms(d time.Duration) report.Figure {
	return report.Figure(float64(d) / float64(time.Millisecond))
}

func (all results) tables() []report.Table {
	labels := []string{"Services x endpoints", "proxy"}
	start := report.Table{
		Title: "cold start: seconds to the last transaction; CPU with children; memory of the proxy alone", Labels: labels,
		Columns: []string{"pure list", "from start", "objects to kernel", "CPU", "peak MB"},
	}
	change := report.Table{
		Title: "one endpoint replaced, ms; bytes are those that the kernel announces", Labels: labels,
		Columns: []string{"API call p50", "p99", "event to kernel p50", "p99", "call to kernel p50", "p99", "CPU", "bytes", "peak MB", "MB at rest"},
	}
	connect := report.Table{
		Title: "connections from pod to pod of one node, one after the other", Labels: append(labels, "way"),
		Columns: []string{"per second", "of straight", "p50 us", "p99 us"},
	}
	for _, r := range all {
		row := []string{r.size.String(), r.proxy}
		start.Rows = append(start.Rows, report.Row{Labels: row, Figures: []report.Figure{
			seconds(r.list), seconds(r.start), seconds(r.synced), seconds(r.cold.CPU), report.Figure(r.cold.Peak),
		}})
		c := r.changes
		change.Rows = append(change.Rows, report.Row{Labels: row, Figures: []report.Figure{
			ms(report.Quantile(c.API, 0.5)), ms(report.Quantile(c.API, 0.99)), ms(report.Quantile(c.Watch, 0.5)), ms(report.Quantile(c.Watch, 0.99)), ms(report.Quantile(c.Full, 0.5)), ms(report.Quantile(c.Full, 0.99)),
			ms(c.cpu), report.Figure(c.bytes), report.Figure(r.resting.Peak), report.Figure(r.resting.Now),
		}})
		for _, w := range r.ways {
			connect.Rows = append(connect.Rows, report.Row{Labels: append(slices.Clone(row), w.name), Figures: []report.Figure{
				report.Figure(w.rate()), report.Rate(w.turn, r.ways[0].turn), 1000 * ms(report.Quantile(w.took, 0.5)), 1000 * ms(report.Quantile(w.took, 0.99)),
			}})
		}
	}
	return []report.Table{start, change, connect}
}

func (all results) of(proxy string, s size) (result, bool) {
	i := slices.IndexFunc(all, func(r result) bool { return r.proxy == proxy && r.size == s })
	if i < 0 {
		return result{}, false
	}
	return all[i], true
}

func (all results) verdicts() (list []report.Verdict) {
	most := func(what string, figure, target report.Figure) {
		list = append(list, report.AtMost(what, figure, target))
	}
	for _, p := range all {
		if p.proxy != poplin {
			continue
		}
		k, _ := all.of(nftables, p.size)
		// What kube-proxy does grows with the square: of fewer Services a
		// twentieth of it is less than the kernel needs for the elements.
		if p.services >= 10000 {
			most(fmt.Sprintf("%s: objects to kernel / kube-proxy's", p.size), seconds(p.synced)/seconds(k.synced), 0.05)
		}
		most(fmt.Sprintf("%s: peak memory / kube-proxy's", p.size), report.Figure(p.resting.Peak/k.resting.Peak), 0.6)
		most(fmt.Sprintf("%s: memory at rest / kube-proxy's", p.size), report.Figure(p.resting.Now/k.resting.Now), 0.6)
		most(fmt.Sprintf("%s: a change, event to kernel, ms p99", p.size), ms(report.Quantile(p.changes.Watch, 0.99)), 5)
		most(fmt.Sprintf("%s: a change, API call to kernel, ms p50", p.size), ms(report.Quantile(p.changes.Full, 0.5)), 10)
		most(fmt.Sprintf("%s: the same, p99", p.size), ms(report.Quantile(p.changes.Full, 0.99)), 30)
		list = append(list, report.AtLeast(fmt.Sprintf("%s: connections through a Service / straight", p.size),
			report.Rate(p.ways[1].turn, p.ways[0].turn), 0.95))
	}
	if r, ok := all.of(poplin, size{10000, 10}); ok {
		most(fmt.Sprintf("%s: cold start in seconds, of which %.1f are the pure list", r.size, r.list.Seconds()), seconds(r.start), 3)
	}
	for _, pair := range [][2]size{{{1000, 2}, {10000, 2}}, {{1000, 10}, {10000, 10}}} {
		few, ok1 := all.of(poplin, pair[0])
		many, ok2 := all.of(poplin, pair[1])
		if ok1 && ok2 {
			most(fmt.Sprintf("exponent by which objects to kernel grow, %s to %s", pair[0], pair[1]),
				report.Exponent(seconds(few.synced), seconds(many.synced), float64(pair[1].services)/float64(pair[0].services)), 1.2)
			most(fmt.Sprintf("a change, call to kernel p50, %s / %s", pair[1], pair[0]), ms(report.Quantile(many.changes.Full, 0.5))/ms(report.Quantile(few.changes.Full, 0.5)), 1.2)
		}
	}
	return list
}
