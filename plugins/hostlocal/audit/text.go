package audit

import (
	"cmp"
	"fmt"
	"io"
	"text/tabwriter"
)

// Show writes all of a report.
func (r Report) Show(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "RANGE\tADDRESSES\tTAKEN\tFREE")
	for _, one := range r.Ranges {
		fmt.Fprintf(t, "%s\t%s\t%d\t%s\n", one.Range, one.Size, one.Taken, one.Free)
	}
	fmt.Fprintln(t, "\nADDRESS\tSTATE\tPOD\tINTERFACE\tCONTAINER")
	for _, a := range r.Addresses {
		state := a.State
		if a.State == Resting {
			state = fmt.Sprintf("%s %d s", state, a.Seconds)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", a.Address, state, cmp.Or(a.Pod, "-"), cmp.Or(a.IfName, "-"), cmp.Or(a.ContainerID, "-"))
	}
	if err := t.Flush(); err != nil || len(r.Problems)+len(r.Remarks) == 0 {
		return err
	}
	fmt.Fprintln(w)
	return r.Findings(w)
}

// Findings writes what is wrong.
func (r Report) Findings(w io.Writer) error {
	for _, p := range r.Problems {
		if _, err := fmt.Fprintf(w, "%s: %s\n    what to do: %s\n", p.Kind, p.What, p.Remedy); err != nil {
			return err
		}
	}
	for _, text := range r.Remarks {
		if _, err := fmt.Fprintf(w, "remark: %s\n", text); err != nil {
			return err
		}
	}
	if len(r.Problems) == 0 {
		_, err := fmt.Fprintf(w, "network %s: no problem found in %d addresses\n", r.Network, len(r.Addresses))
		return err
	}
	return nil
}
