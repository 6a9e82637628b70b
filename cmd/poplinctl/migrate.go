package main

import (
	"fmt"
	"io"
	"strings"

	"poplin.dev/poplin/daemon/ingress/view"
	"poplin.dev/poplin/pkg/ingress/migrate"
)

// migration says of each Ingress whether it can move to Poplin, and what
// stands against it.
func migration(w io.Writer, format, controller string, v *view.View) error {
	reports := migrate.Reports(v.Ingresses, v.Result)
	return write(w, format, reports, func(w io.Writer) error {
		ready := 0
		for _, r := range reports {
			if r.Ready() {
				ready++
			}
			report(w, r)
		}
		_, err := fmt.Fprintf(w, "%d Ingresses of %s: %d can move as they are, %d want a look\n", len(reports), controller, ready, len(reports)-ready)
		return err
	})
}

func report(w io.Writer, r migrate.Report) {
	verdict := "can move as it is"
	if !r.Ready() {
		verdict = "wants a look"
	}
	fmt.Fprintf(w, "%s: %s\n", r.Ingress, verdict)
	for _, l := range []struct {
		what string
		keys []string
	}{
		{"work the same", r.Works}, {"have no effect, and need none", r.NoEffect},
		{"are ignored", r.Ignored}, {"keep it closed until they are changed", r.Refused},
	} {
		if len(l.keys) > 0 {
			fmt.Fprintf(w, "  %s: %s\n", l.what, strings.Join(l.keys, ", "))
		}
	}
	for _, s := range r.Surprises {
		fmt.Fprintf(w, "  may rest on ingress-nginx's way that %s: %s\n", s.Behaviour, s.Text)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "  %s: %s\n", f.Reason, f.Text)
	}
	fmt.Fprintln(w)
}
