package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
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
	return row{command, mode, plugin, len(s.took), at(0.50), at(0.90), at(0.99), ms(s.cpu) / float64(len(s.took))}
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// row is what one plugin took, in milliseconds. CPU is of the plugin's
// processes, per call; the kernel's own threads are not in it.
type row struct {
	Command, Mode, Plugin string
	Calls                 int
	P50, P90, P99, CPU    float64
}

// verdict is a ratio and what it should be at most.
type verdict struct {
	What          string
	Ratio, Target float64
	Met           bool
}

type report struct {
	Machine, Options string
	Rows             []row
	Verdicts         []verdict
}

// judge relates poplin to the others, mode by mode.
func judge(rows []row) (list []verdict) {
	find := func(command, mode, plugin string) row {
		i := slices.IndexFunc(rows, func(r row) bool { return r.Command == command && r.Mode == mode && r.Plugin == plugin })
		return rows[i]
	}
	add := func(what string, ratio, target float64) {
		list = append(list, verdict{what, ratio, target, ratio <= target})
	}
	for _, mode := range modes(rows) {
		p, u, f := find("ADD", mode, "poplin"), find("ADD", mode, "ptp"), find("ADD", mode, "floor")
		add("ADD p50 / ptp+host-local, "+mode, p.P50/u.P50, 0.5)
		add("ADD p99 / ptp+host-local, "+mode, p.P99/u.P99, 0.7)
		add("ADD p50 / floor, "+mode, p.P50/f.P50, 1.5)
		p, u = find("DEL", mode, "poplin"), find("DEL", mode, "ptp")
		add("DEL p50 / ptp+host-local, "+mode, p.P50/u.P50, 0.95)
	}
	return list
}

func modes(rows []row) (list []string) {
	for _, r := range rows {
		if !slices.Contains(list, r.Mode) {
			list = append(list, r.Mode)
		}
	}
	return list
}

func (r report) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\nms\t\tplugin\tp50\tp90\tp99\tcpu\t")
	for _, o := range r.Rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%.2f\t%.2f\t%.2f\t%.2f\t\n", o.Command, o.Mode, o.Plugin, o.P50, o.P90, o.P99, o.CPU)
	}
	fmt.Fprintln(w, "\nratio\tat most\t\t\t")
	for _, v := range r.Verdicts {
		met := "met"
		if !v.Met {
			met = "NOT MET"
		}
		fmt.Fprintf(w, "%.2f\t%.2f\t%s\t%s\t\n", v.Ratio, v.Target, met, v.What)
	}
	w.Flush()
}
