// Package report is what a bench says. Inputs are figures and targets; outputs
// are tables for people and JSON for programs. It refuses to say "met" of a
// figure that was not taken.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is one run of the bench.
type Report struct {
	Machine string
	Areas   []Area
}

// Area is what one part of the bench measured.
type Area struct {
	Name, Options string
	Tables        []Table
	Verdicts      []Verdict
}

// Table is figures and what they are of.
type Table struct {
	Title   string   // with the unit, where all columns share one
	Labels  []string // heads of what a row is of
	Columns []string // heads of figures
	Rows    []Row
}

// Row is one line of figures.
type Row struct {
	Labels  []string
	Figures []Figure
}

// Figure is a number, or Missing.
type Figure float64

// Missing is a figure that cannot be taken.
var Missing = Figure(math.NaN())

// MarshalJSON writes null for Missing.
func (f Figure) MarshalJSON() ([]byte, error) {
	if f != f {
		return []byte("null"), nil
	}
	return json.Marshal(float64(f))
}

// String has three digits that count.
func (f Figure) String() string {
	switch size := math.Abs(float64(f)); {
	case f != f:
		return "-"
	case size >= 100:
		return fmt.Sprintf("%.0f", float64(f))
	case size >= 10:
		return fmt.Sprintf("%.1f", float64(f))
	case size >= 0.1 || f == 0:
		return fmt.Sprintf("%.2f", float64(f))
	}
	return fmt.Sprintf("%.4f", float64(f))
}

// Quantile is that of times, 0 of none.
func Quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return list[min(int(q*float64(len(list))), len(list)-1)]
}

// Sum is that of times.
func Sum(list []time.Duration) (sum time.Duration) {
	for _, d := range list {
		sum += d
	}
	return sum
}

// Rate is the part of another's rate that one has, who took these times for
// the same, turn by turn: the machine's speed changes between them.
func Rate(one, other []time.Duration) Figure {
	ratios := make([]float64, len(one))
	for i, d := range one {
		ratios[i] = float64(other[i]) / float64(d)
	}
	slices.Sort(ratios)
	return Figure(ratios[len(ratios)/2])
}

// Verdict is a figure and where it should be.
type Verdict struct {
	What   string
	Figure Figure
	Bound  string // "at most" or "at least"
	Target Figure
	Met    bool
}

// AtMost is met by a figure that is no larger.
func AtMost(what string, figure, target Figure) Verdict {
	return Verdict{what, figure, "at most", target, figure <= target}
}

// AtLeast is met by a figure that is no smaller.
func AtLeast(what string, figure, target Figure) Verdict {
	return Verdict{what, figure, "at least", target, figure >= target}
}

// Print writes an area for people.
func (a Area) Print(out io.Writer) error {
	fmt.Fprintf(out, "\n%s: %s\n", a.Name, a.Options)
	for _, t := range a.Tables {
		fmt.Fprintf(out, "\n%s\n", t.Title)
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
		line(w, t.Labels, t.Columns)
		for _, r := range t.Rows {
			var figures []string
			for _, f := range r.Figures {
				figures = append(figures, f.String())
			}
			line(w, r.Labels, figures)
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "\nfigure\t\t\ttarget\t\t")
	for _, v := range a.Verdicts {
		met := "met"
		if !v.Met {
			met = "NOT MET"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", v.Figure, v.Bound, v.Target, met, v.What)
	}
	return w.Flush()
}

func line(w io.Writer, labels, cells []string) {
	fmt.Fprintf(w, "%s\t\n", strings.Join(append(append([]string{}, labels...), cells...), "\t"))
}
