package connectivity

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Failed are the checks that are not as they should be.
func Failed(list []Check) (failed []Check) {
	for _, c := range list {
		if c.Problem != "" {
			failed = append(failed, c)
		}
	}
	return failed
}

// Text is the checks for people: of each kind how many are well, and each that is
// not.
func Text(w io.Writer, list []Check) error {
	var kinds []string
	all, well := map[string]int{}, map[string]int{}
	for _, c := range list {
		if all[c.Kind]++; all[c.Kind] == 1 {
			kinds = append(kinds, c.Kind)
		}
		if c.Problem == "" {
			well[c.Kind]++
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, kind := range kinds {
		verdict := "ok"
		if well[kind] < all[kind] {
			verdict = "FAILED"
		}
		fmt.Fprintf(t, "%s\t%d of %d\t%s\n", verdict, well[kind], all[kind], kind)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, c := range Failed(list) {
		if _, err := fmt.Fprintf(w, "%s: %s -> %s (%s): %s\n", c.Kind, c.From, c.To, c.Question.Address, c.Problem); err != nil {
			return err
		}
		if c.Trace != "" {
			if _, err := fmt.Fprintf(w, "    trace: %s\n", c.Trace); err != nil {
				return err
			}
		}
	}
	return nil
}
