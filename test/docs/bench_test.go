package docs

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	benchArea = regexp.MustCompile(`(?m)^\t\t\{"([a-z]+)", "`)
	benchFlag = regexp.MustCompile(`\bflag\.[A-Z]\w+\((?:&[\w.]+, )?"([a-z]+)"`)
	// benchFlags are what pages tell readers to give the bench, quoted or not.
	benchFlags = regexp.MustCompile(`BENCHFLAGS=(?:"([^"]*)"|'([^']*)'|([^\s"':)` + "`" + `]+))`)
	namedArea  = regexp.MustCompile("(?s)\\(area\\s+`([a-z]+)`\\)|`-only ([a-z,]+)`")
)

// TestBench: what pages and the Makefile tell readers to measure, the bench has.
func TestBench(t *testing.T) {
	source := read(t, "test/bench/main.go")
	known := func(p *regexp.Regexp) (names []string) {
		for _, m := range p.FindAllStringSubmatch(source, -1) {
			names = append(names, m[1])
		}
		return names
	}
	areas, flags := known(benchArea), known(benchFlag)
	if len(areas) < 8 || len(flags) < 8 {
		t.Fatalf("areas %v, flags %v: are the patterns right?", areas, flags)
	}
	found := 0
	only := func(page, list string) {
		for _, area := range strings.Split(list, ",") {
			if found++; !slices.Contains(areas, area) {
				t.Errorf("%s names the bench's area %q: it has %v", page, area, areas)
			}
		}
	}
	texts := pages(t)
	texts["Makefile"] = read(t, "Makefile")
	for page, text := range texts {
		for _, m := range benchFlags.FindAllStringSubmatch(text, -1) {
			words := strings.Fields(m[1] + m[2] + m[3])
			for i, word := range words {
				name, isFlag := strings.CutPrefix(word, "-")
				if isFlag && !slices.Contains(flags, name) {
					t.Errorf("%s has %s: the bench has the flags %v", page, m[0], flags)
				}
				if name == "only" && i+1 < len(words) {
					only(page, words[i+1])
				}
			}
		}
		for _, m := range namedArea.FindAllStringSubmatch(text, -1) {
			only(page, m[1]+m[2])
		}
	}
	if found < 10 {
		t.Errorf("%d areas named: are the patterns right?", found)
	}
}
