// Package print is a report as people read it: the hops of the way, the broken one
// in red, one line of cause, one of cure. Input is a report; it refuses to leave
// out a hop.
package print

import (
	"fmt"
	"io"
	"strings"

	"poplin.dev/poplin/pkg/trace/way"
)

// Report writes it; verbose adds what each hop was judged by.
func Report(w io.Writer, r way.Report, verbose, colour bool) error {
	paint := func(s way.Status) string {
		text := fmt.Sprintf("%-8s", s)
		code := map[way.Status]string{way.OK: "32", way.Broken: "1;31", way.Suspect: "33", way.Unknown: "36"}[s]
		if !colour {
			return text
		}
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	fmt.Fprintf(w, "from %s to %s\n\n", r.From, r.To)
	if m := r.Memory; m != nil {
		fmt.Fprintf(w, "%s\n\n", m.Say(r.Taken))
	}
	for _, h := range r.Hops {
		where := h.About
		if h.Node != "" && h.About != "node "+h.Node {
			where += ", on node " + h.Node
		}
		fmt.Fprintf(w, "%s %-16s %s\n", paint(h.Status), h.Hop, where)
		if h.Cause != "" {
			fmt.Fprintf(w, "%-25s %s\n", "", h.Cause)
		}
		if h.Cure != "" {
			fmt.Fprintf(w, "%-25s $ %s\n", "", h.Cure)
		}
		for _, e := range h.Evidence {
			if verbose {
				fmt.Fprintf(w, "%-25s - %s\n", "", e)
			}
		}
	}
	for _, x := range r.Probe {
		witnessed(w, x, verbose)
	}
	fmt.Fprintf(w, "\n%s", paint(r.Status))
	if r.Status != way.OK {
		fmt.Fprintf(w, " hop %s: %s", r.Hop, r.Cause)
	}
	_, err := fmt.Fprintln(w)
	return err
}

// witnessed is what became of a real request.
func witnessed(w io.Writer, x way.Witness, verbose bool) {
	fmt.Fprintf(w, "\na real packet from %s to %s", x.From, x.To)
	if x.Endpoint != "" && !strings.HasPrefix(x.To, x.Endpoint) {
		fmt.Fprintf(w, ", at %s", x.Endpoint)
	}
	fmt.Fprintf(w, ": %s\n", x.Result)
	if x.Why != "" {
		fmt.Fprintf(w, "  %s\n", x.Why)
	}
	for _, s := range x.Steps {
		mark := "+"
		if !s.Seen {
			mark = "-"
		}
		if verbose || !s.Seen {
			fmt.Fprintf(w, "  %s %s %s\n", mark, s.Node, s.Where)
		}
	}
}
