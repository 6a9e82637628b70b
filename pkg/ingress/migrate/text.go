package migrate

import (
	"fmt"
	"io"
	"strings"
)

// Text says of each Ingress of a controller whether it can move to Poplin, and
// what stands against it.
func Text(w io.Writer, controller string, reports []Report) error {
	ready := 0
	for _, r := range reports {
		if r.Ready() {
			ready++
		}
		r.text(w)
	}
	_, err := fmt.Fprintf(w, "%d Ingresses of %s: %d can move as they are, %d want a look\n", len(reports), controller, ready, len(reports)-ready)
	return err
}

func (r Report) text(w io.Writer) {
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
