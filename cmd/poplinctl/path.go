package main

import (
	"fmt"
	"io"
	"os"

	"poplin.dev/poplin/pkg/trace/way"
)

// colours reports whether somebody looks who can see them.
func colours(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""
}

// path is a report for people.
func path(w io.Writer, r way.Report, verbose, colour bool) error {
	paint := func(s way.Status) string {
		text := fmt.Sprintf("%-8s", s)
		code := map[way.Status]string{way.OK: "32", way.Broken: "1;31", way.Suspect: "33", way.Unknown: "36"}[s]
		if !colour {
			return text
		}
		return "\x1b[" + code + "m" + text + "\x1b[0m"
	}
	fmt.Fprintf(w, "from %s to %s\n\n", r.From, r.To)
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
	fmt.Fprintf(w, "\n%s", paint(r.Status))
	if r.Status != way.OK {
		fmt.Fprintf(w, " hop %s: %s", r.Hop, r.Cause)
	}
	_, err := fmt.Fprintln(w)
	return err
}
