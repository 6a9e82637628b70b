// Package operate keeps the tables of docs/operate.md as the code has them. In:
// the daemon's configuration, the programs' metrics and reasons of Events; out:
// the page, which go test -update writes, or a failed test. It refuses a table
// without a mark in the page, and what says nothing about itself.
package operate

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/test/golden"
	"poplin.dev/poplin/test/monitoring"
)

const (
	root = "../../.."
	page = root + "/docs/operate.md"
)

// mark stands before a table that is made here, and names it.
var mark = regexp.MustCompile(`(?m)^<!-- (\w+): made from the code by .* -->\n`)

// tables are made by what the page calls them.
var tables = map[string]func(*testing.T) string{
	"keys":          keys,
	"metrics":       metrics(monitoring.Daemon),
	"ingress":       metrics(monitoring.Ingress),
	"events":        events(reason.Poplind),
	"ingressEvents": events(reason.Ingress),
	"annotations":   annotations,
	"marks":         marks,
}

func TestPage(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	rest, made := string(text), map[string]bool{}
	for at := mark.FindStringSubmatchIndex(rest); at != nil; at = mark.FindStringSubmatchIndex(rest) {
		name := rest[at[2]:at[3]]
		table := tables[name]
		if table == nil || made[name] {
			t.Fatalf("%s has a mark for %s: there is no such table, or it has two", page, name)
		}
		made[name] = true
		b.WriteString(rest[:at[1]] + "\n" + table(t))
		// What was made before ends at the first empty line, or with the page.
		_, rest, _ = strings.Cut(strings.TrimPrefix(rest[at[1]:], "\n"), "\n\n")
		if rest != "" {
			b.WriteString("\n")
		}
	}
	b.WriteString(rest)
	for name := range tables {
		if !made[name] {
			t.Errorf("%s has no mark for %s", page, name)
		}
	}
	golden.Equal(t, page, b.String())
}

// rows is a table in Markdown.
func rows(head []string, lines [][]string) string {
	var b strings.Builder
	line := func(cells []string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	line(head)
	b.WriteString("|" + strings.Repeat(" --- |", len(head)) + "\n")
	for _, cells := range lines {
		line(cells)
	}
	return b.String()
}

// quoted are words as code.
func quoted(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return "`" + strings.Join(words, "`, `") + "`"
}
