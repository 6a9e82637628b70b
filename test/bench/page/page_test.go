package page

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"poplin.dev/poplin/test/bench/report"
)

// The page in docs is what its figures make it.
func TestPageIsMadeOfItsFigures(t *testing.T) {
	docs := filepath.Join("..", "..", "..", "docs")
	want, err := Write(filepath.Join(docs, "performance.json"))
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile(filepath.Join(docs, "performance.md"))
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != want {
		t.Error("docs/performance.md is not what docs/performance.json makes it: run make performance")
	}
}

// What is missed and what disturbed the run stands on the page, above all tables.
func TestNothingIsHidden(t *testing.T) {
	r := report.Report{Date: "2026-01-02", Commit: "abc", Machine: "a machine", CPUs: 2, Others: 1.5, Quick: true, Areas: []report.Area{{
		Name: "Some area", About: "It is about this.", Options: "few",
		Tables: []report.Table{{Title: "ms", Labels: []string{"a|b"}, Columns: []string{"p50"}, Rows: []report.Row{
			{Labels: []string{"x"}, Figures: []report.Figure{1.5}}, {Labels: []string{"y"}, Figures: []report.Figure{report.Missing}},
		}}},
		Verdicts: []report.Verdict{report.AtMost("good", 1, 2), report.AtMost("bad", 3, 2)},
	}}}
	text := Page([]report.Report{r})
	summary, tables, _ := strings.Cut(text, "\n## Some area\n")
	for _, want := range []string{
		"2026-01-02", "`abc`", "a machine", "The machine was busy", "This was a quick run", "| [Some area](#some-area) | 2 | 1 |\n",
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
	r.Others, r.Quick = 0.1, false
	if text := Page([]report.Report{r}); strings.Contains(text, "busy") || strings.Contains(text, "quick run") {
		t.Error("a whole run on a quiet machine is called quick, or busy")
	}
}

// What people have written around figures stays, and old figures go.
func TestFill(t *testing.T) {
	r := report.Report{Date: "2026-01-02", Areas: []report.Area{{Name: "Some area", Options: "few", Tables: []report.Table{{Title: "ms", Columns: []string{"p50"}, Rows: []report.Row{{Figures: []report.Figure{1.5}}}}}}}}
	const head, tail = "# Words\n\n<!-- figures: Some area -->\n", "<!-- end of figures -->\nmore words\n"
	once, err := Fill(head+"old\n"+tail, r)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(once, head) || !strings.HasSuffix(once, tail) || !strings.Contains(once, "| 1.50 |") || strings.Contains(once, "old") {
		t.Errorf("filled in:\n%s", once)
	}
	if twice, err := Fill(once, r); err != nil || twice != once {
		t.Errorf("filled in again, %v:\n%s", err, twice)
	}
	for _, text := range []string{"# No place\n", head} {
		if _, err := Fill(text, r); err == nil {
			t.Errorf("no error for %q", text)
		}
	}
}

// The figures of docs/scale.md are those of a run.
func TestScaleIsOfARun(t *testing.T) {
	r, err := Read("../../../docs/scale.json")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../../docs/scale.md")
	if err != nil {
		t.Fatal(err)
	}
	if filled, err := Fill(string(text), r); err != nil || filled != string(text) {
		t.Errorf("docs/scale.md does not hold the figures of docs/scale.json (%v): make scale", err)
	}
}
