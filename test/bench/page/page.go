// Package page writes what a bench said as a page for readers. Inputs are
// reports, read from JSON; output is Markdown. It refuses to choose: every table
// and every target of the reports is on the page, met or not.
package page

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"poplin.dev/poplin/test/bench/report"
)

// Write makes the page of reports, each a file of JSON.
func Write(files ...string) (string, error) {
	if len(files) == 0 {
		return "", errors.New("no files: name what -json has written")
	}
	var all []report.Report
	for _, name := range files {
		r, err := Read(name)
		if err != nil {
			return "", err
		}
		all = append(all, r)
	}
	return Page(all), nil
}

// Read reads a report from a file of JSON.
func Read(name string) (r report.Report, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", name, err)
	}
	if len(r.Areas) == 0 {
		return r, fmt.Errorf("read %s: no areas: is it what -json has written?", name)
	}
	return r, nil
}

const head = `# Performance

Poplin beside what it replaces, and beside the least that the same work can cost.
This page is made from [performance.json](performance.json), which a run of the
bench has written; a test holds it to that file, so nobody writes figures by hand.
Every table and every target of the run is here, met or not.

## How to repeat it

As root on Debian 12 with Go, in the project's source:

` + "```" + `sh
make bench BENCHFLAGS="-json docs/performance.json"
make performance
` + "```" + `

The first command measures, the second makes this page; ` + "`BENCHFLAGS=\"-only traffic\"`" + `
is one area, ` + "`-quick`" + ` less of each. All of it happens in network namespaces and
temporary files, which are gone afterwards.

## How to read it

Figures move with the machine, and with what else it does. What is put in relation
was therefore measured in one run, by turns, in changing order: compare the ratios,
not the milliseconds. A p50 is what half of the calls do not exceed, a p99 what 99
in 100 do not. CPU is processor time. "-" is what does not exist.
`

// Page is Markdown of reports.
func Page(all []report.Report) string {
	var b strings.Builder
	b.WriteString(head)
	for _, r := range all {
		run(&b, r)
	}
	for _, r := range all {
		for _, a := range r.Areas {
			area(&b, a)
		}
	}
	return b.String()
}

// Fill puts an area of a report into a page that people have written, between
// two lines that name it: <!-- figures: Scale --> and <!-- end of figures -->.
func Fill(text string, r report.Report) (string, error) {
	for _, a := range r.Areas {
		begin := fmt.Sprintf("<!-- figures: %s -->\n", a.Name)
		before, rest, found := strings.Cut(text, begin)
		if !found {
			continue
		}
		_, after, found := strings.Cut(rest, endOfFigures)
		if !found {
			return "", fmt.Errorf("fill in figures of %s: no line %q behind its first", a.Name, endOfFigures)
		}
		var b strings.Builder
		fmt.Fprintf(&b, "\nThe run of %s, commit `%s`; %s.%s\n\n%s.\n", r.Date, r.Commit, r.Machine, warnings(r), capital(a.Options))
		figures(&b, a)
		return before + begin + b.String() + "\n" + endOfFigures + after, nil
	}
	return "", errors.New("fill in figures: the page has no line <!-- figures: NAME --> of an area of the report")
}

const endOfFigures = "<!-- end of figures -->"

// run is what one run was, and whether its targets are met.
func run(b *strings.Builder, r report.Report) {
	fmt.Fprintf(b, "\n## The run of %s\n\nCommit `%s`; %s.%s\n\n", r.Date, r.Commit, r.Machine, warnings(r))
	line(b, "area", "targets", "met")
	line(b, "---", "---:", "---:")
	var missed []report.Verdict
	for _, a := range r.Areas {
		met := 0
		for _, v := range a.Verdicts {
			if v.Met {
				met++
			} else {
				v.What = a.Name + ": " + v.What
				missed = append(missed, v)
			}
		}
		line(b, fmt.Sprintf("[%s](#%s)", a.Name, anchor(a.Name)), fmt.Sprint(len(a.Verdicts)), fmt.Sprint(met))
	}
	if len(missed) > 0 {
		b.WriteString("\nNot met:\n\n")
		verdicts(b, missed)
	}
}

// warnings say what makes figures less certain.
func warnings(r report.Report) (text string) {
	if r.Quick {
		text = " **This was a quick run**: less of everything, so figures are less certain."
	}
	if r.Others > busy*float64(r.CPUs) {
		text += fmt.Sprintf(" **The machine was busy**: other work used %.1f of %d CPUs when it began, so figures of time are too large and spread.", r.Others, r.CPUs)
	}
	return text
}

// busy is the part of the processors that others may use.
const busy = 0.1

func anchor(name string) string { return strings.ReplaceAll(strings.ToLower(name), " ", "-") }

func area(b *strings.Builder, a report.Area) {
	fmt.Fprintf(b, "\n## %s\n\n%s\n\nThis run: %s.\n", a.Name, a.About, a.Options)
	figures(b, a)
}

// figures are an area's tables and targets.
func figures(b *strings.Builder, a report.Area) {
	for _, t := range a.Tables {
		fmt.Fprintf(b, "\n%s:\n\n", capital(t.Title))
		line(b, append(append([]string{}, t.Labels...), t.Columns...)...)
		var rule []string
		for range t.Labels {
			rule = append(rule, "---")
		}
		for range t.Columns {
			rule = append(rule, "---:")
		}
		line(b, rule...)
		for _, r := range t.Rows {
			cells := append([]string{}, r.Labels...)
			for _, f := range r.Figures {
				cells = append(cells, f.String())
			}
			line(b, cells...)
		}
	}
	if len(a.Verdicts) > 0 {
		b.WriteString("\nTargets:\n\n")
		verdicts(b, a.Verdicts)
	}
}

func verdicts(b *strings.Builder, list []report.Verdict) {
	line(b, "what", "figure", "target", "")
	line(b, "---", "---:", "---", "---")
	for _, v := range list {
		met := "met"
		if !v.Met {
			met = "**not met**"
		}
		line(b, v.What, v.Figure.String(), v.Bound+" "+v.Target.String(), met)
	}
}

func line(b *strings.Builder, cells ...string) {
	for _, c := range cells {
		b.WriteString("| " + strings.ReplaceAll(c, "|", `\|`) + " ")
	}
	b.WriteString("|\n")
}

func capital(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
