package page

import (
	"strings"
	"testing"

	"poplin.dev/poplin/test/bench/report"
)

// What is missed and what disturbed the run stands on the page, above all tables.
func TestNothingIsHidden(t *testing.T) {
	r := report.Report{Date: "2026-01-02", Commit: "abc", Machine: "a machine", CPUs: 2, Load: 3, Areas: []report.Area{{
		Name: "Some area", About: "It is about this.", Options: "few",
		Tables: []report.Table{{Title: "ms", Labels: []string{"a|b"}, Columns: []string{"p50"}, Rows: []report.Row{
			{Labels: []string{"x"}, Figures: []report.Figure{1.5}}, {Labels: []string{"y"}, Figures: []report.Figure{report.Missing}},
		}}},
		Verdicts: []report.Verdict{report.AtMost("good", 1, 2), report.AtMost("bad", 3, 2)},
	}}}
	text := Page([]report.Report{r})
	summary, tables, _ := strings.Cut(text, "\n## Some area\n")
	for _, want := range []string{
		"2026-01-02", "`abc`", "a machine", "The machine was busy", "| [Some area](#some-area) | 2 | 1 |\n",
		"| Some area: bad | 3.00 | at most 2.00 | **not met** |\n",
	} {
		if !strings.Contains(summary, want) {
			t.Errorf("above the tables %q is missing in\n%s", want, summary)
		}
	}
	for _, want := range []string{
		"It is about this.", "This run: few.", "| a\\|b | p50 |\n| --- | ---: |\n| x | 1.50 |\n| y | - |\n", "| good | 1.00 | at most 2.00 | met |\n",
	} {
		if !strings.Contains(tables, want) {
			t.Errorf("%q is missing in\n%s", want, tables)
		}
	}
	r.Load = 0.1
	if strings.Contains(Page([]report.Report{r}), "busy") {
		t.Error("a quiet machine is called busy")
	}
}
