// Package report is what a bench says. Inputs are figures and targets; outputs
// are tables for people and JSON for programs. It refuses to say "met" of a
// figure that was not taken.
package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is one run of the bench.
type Report struct {
	Date, Commit string
	Machine      string
	CPUs         int
	Others       float64 // how many CPUs others used just before
	Quick        bool    // less of everything
	Areas        []Area
}

// Area is what one part of the bench measured. About says for readers what it
// is, in sentences; Options how much of it this was.
type Area struct {
	Name, About, Options string
	Tables               []Table
	Verdicts             []Verdict
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

// MarshalJSON writes null for Missing, and no digits that nobody can measure.
func (f Figure) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(f)) {
		return []byte("null"), nil
	}
	if math.IsInf(float64(f), 0) {
		return nil, fmt.Errorf("figure is %v: something was divided by nothing", float64(f))
	}
	return strconv.AppendFloat(nil, float64(f), 'g', 6, 64), nil
}

// UnmarshalJSON is the reverse.
func (f *Figure) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		*f = Missing
		return nil
	}
	return json.Unmarshal(b, (*float64)(f))
}

// String has three digits that count.
func (f Figure) String() string {
	switch size := math.Abs(float64(f)); {
	case math.IsNaN(float64(f)):
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

// middle is the part q of the sorted list, 0 of none.
func middle(list []float64, q float64) float64 {
	if len(list) == 0 {
		return 0
	}
	list = slices.Sorted(slices.Values(list))
	return list[min(int(q*float64(len(list))), len(list)-1)]
}

// Median is what half of the figures do not exceed.
func Median(list []float64) Figure { return Figure(middle(list, 0.5)) }

// Spread is how far the middle half of the figures reaches, in % of the median.
func Spread(list []float64) Figure {
	return Figure(100 * (middle(list, 0.75) - middle(list, 0.25)) / middle(list, 0.5))
}

// Share is the quotient of two lists, turn by turn, in most turns.
func Share(one, other []float64) Figure {
	quotients := make([]float64, len(one))
	for i, f := range one {
		quotients[i] = f / other[i]
	}
	return Median(quotients)
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

// Exponent is by which power of its size something grows, from what it is of
// few to what it is of so many times as many: 1 is as the size does.
func Exponent(few, many Figure, times float64) Figure {
	return Figure(math.Log(float64(many/few)) / math.Log(times))
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

// Write puts a report into a file, as JSON.
func (r Report) Write(name string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(b, '\n'), 0o644)
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
