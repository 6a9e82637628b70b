// Command report reads `go test -json` from standard input and prints what a
// person wants of it: the packages' closing lines, the whole output of each
// test that failed, the reason of each that was skipped, the tests that took
// longest, and one line for the suite. Its exit status is 1 if a test failed or
// none ran.
//
//	go test -json ./... | report NAME [TOTALS]
//
// A line "NAME PASSED FAILED SKIPPED SECONDS" is appended to the file TOTALS.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
)

// event is one line of `go test -json` (see `go doc test2json`).
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

type suite struct {
	passed, failed, skipped int
	output                  map[string]*strings.Builder // by package and test
	took                    []event                     // ends of tests that are no part of another
}

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: go test -json ./... | report NAME [TOTALS]")
		os.Exit(2)
	}
	start := time.Now()
	s := &suite{output: map[string]*strings.Builder{}}
	if err := s.read(os.Stdin); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(2)
	}
	seconds := time.Since(start).Seconds()
	fmt.Print(s.longest())
	fmt.Printf("suite %s: %d passed, %d failed, %d skipped, %.0f s\n", os.Args[1], s.passed, s.failed, s.skipped, seconds)
	if len(os.Args) == 3 {
		if err := total(os.Args[2], os.Args[1], s, seconds); err != nil {
			fmt.Fprintln(os.Stderr, "report:", err)
			os.Exit(2)
		}
	}
	if s.failed > 0 || s.passed == 0 {
		os.Exit(1)
	}
}

func (s *suite) read(r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text()) // not an event: a build's own words
			continue
		}
		s.add(e)
	}
	return lines.Err()
}

func (s *suite) add(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Print(e.Output)
	case "build-fail":
		s.failed++
	case "output":
		if s.output[key] == nil {
			s.output[key] = &strings.Builder{}
		}
		s.output[key].WriteString(e.Output)
	case "pass", "fail", "skip":
		s.end(e, key)
	}
}

func (s *suite) end(e event, key string) {
	out := ""
	if b := s.output[key]; b != nil {
		out = b.String()
		delete(s.output, key)
	}
	if e.Test == "" { // a package: its closing line, or all it said when it failed
		if e.Action == "fail" {
			if !strings.Contains(out, "--- FAIL") && s.failed == 0 {
				s.failed++ // a panic or a time-out outside of any test
			}
			fmt.Print(out)
		} else if last := strings.TrimSpace(out); last != "" && e.Action == "pass" {
			fmt.Println(last[strings.LastIndexByte(last, '\n')+1:])
		}
		return
	}
	if !strings.Contains(e.Test, "/") {
		s.took = append(s.took, e)
	}
	switch e.Action {
	case "pass":
		s.passed++
	case "fail":
		s.failed++
		fmt.Printf("%s\n%s", key, out)
	case "skip":
		s.skipped++
		fmt.Printf("skipped %s\n%s", key, out)
	}
}

// longest are lines with the tests that took longest, of those that took more
// than some seconds. A test that runs beside others counts from when it may run.
func (s *suite) longest() string {
	const most, seconds = 10, 5
	slices.SortStableFunc(s.took, func(a, b event) int { return cmp.Compare(b.Elapsed, a.Elapsed) })
	var b strings.Builder
	for _, e := range s.took[:min(most, len(s.took))] {
		if e.Elapsed > seconds {
			fmt.Fprintf(&b, "%6.0f s %s %s\n", e.Elapsed, e.Package, e.Test)
		}
	}
	return b.String()
}

func total(path, name string, s *suite, seconds float64) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f, "%s %d %d %d %.0f\n", name, s.passed, s.failed, s.skipped, seconds); err != nil {
		return err
	}
	return f.Close()
}
