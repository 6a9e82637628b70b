package pods

import (
	"slices"
	"time"

	"poplin.dev/poplin/test/bench/report"
)

// sample is the calls of one plugin and command.
type sample struct {
	took []time.Duration
	cpu  time.Duration
}

func (s *sample) add(o *sample) {
	s.took = append(s.took, o.took...)
	s.cpu += o.cpu
}

func (s *sample) row(command, mode, plugin string) row {
	slices.Sort(s.took)
	at := func(q float64) float64 {
		return ms(s.took[min(int(q*float64(len(s.took))), len(s.took)-1)])
	}
	return row{command, mode, plugin, at(0.50), at(0.90), at(0.99), ms(s.cpu) / float64(len(s.took))}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// row is what one plugin took, in milliseconds. CPU is of the plugin's
// processes, per call; the kernel's own threads are not in it.
type row struct {
	command, mode, plugin string
	p50, p90, p99, cpu    float64
}

func table(rows []row) report.Table {
	t := report.Table{
		Title: "ms per call, and how the p50 compares; upstream's plugins with host-local", Labels: []string{"command", "", "plugin"},
		Columns: []string{"p50", "p90", "p99", "cpu", "p50 / ptp", "p50 / bridge"},
	}
	for _, r := range rows {
		t.Rows = append(t.Rows, report.Row{
			Labels: []string{r.command, r.mode, r.plugin},
			Figures: []report.Figure{
				report.Figure(r.p50), report.Figure(r.p90), report.Figure(r.p99), report.Figure(r.cpu),
				report.Figure(r.p50 / find(rows, r.command, r.mode, "ptp").p50), report.Figure(r.p50 / find(rows, r.command, r.mode, "bridge").p50),
			},
		})
	}
	return t
}

func find(rows []row, command, mode, plugin string) row {
	return rows[slices.IndexFunc(rows, func(r row) bool { return r.command == command && r.mode == mode && r.plugin == plugin })]
}

// judge relates poplin to the others, mode by mode.
func judge(rows []row) (list []report.Verdict) {
	add := func(what string, ratio, target float64) {
		list = append(list, report.AtMost(what, report.Figure(ratio), report.Figure(target)))
	}
	for _, mode := range modes(rows) {
		p, u, f := find(rows, "ADD", mode, "poplin"), find(rows, "ADD", mode, "ptp"), find(rows, "ADD", mode, "floor")
		add("ADD p50 / ptp+host-local, "+mode, p.p50/u.p50, 0.5)
		add("ADD p99 / ptp+host-local, "+mode, p.p99/u.p99, 0.7)
		add("ADD p50 / floor, "+mode, p.p50/f.p50, 1.5)
		add("ADD p50 that waits for its policies / ptp+host-local, "+mode, find(rows, "ADD", mode, waiting).p50/u.p50, 0.5)
		p, u = find(rows, "DEL", mode, "poplin"), find(rows, "DEL", mode, "ptp")
		add("DEL p50 / ptp+host-local, "+mode, p.p50/u.p50, 0.95)
	}
	return list
}

func modes(rows []row) (list []string) {
	for _, r := range rows {
		if !slices.Contains(list, r.mode) {
			list = append(list, r.mode)
		}
	}
	return list
}
