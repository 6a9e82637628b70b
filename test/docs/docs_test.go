// Package docs checks what the pages for readers refer to: links, commands,
// files and configuration are there and right.
package docs

import (
	"cmp"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"poplin.dev/poplin/pkg/config"
)

const root = "../.."

var (
	fence     = regexp.MustCompile("(?ms)^```[a-z]*\n(.*?)^```$")
	code      = regexp.MustCompile("`([^`]+)`")
	link      = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading   = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	target    = regexp.MustCompile(`\bmake ([a-z][a-z0-9-]*)`)
	variable  = regexp.MustCompile(`\bmake (?:[a-z0-9-]+ )*([A-Z]+)=`)
	// option is a program's flag in the middle of text, or behind its name.
	option = regexp.MustCompile(`^(?:(poplind|poplin-ingress) (?:[a-z]+ )?)?--?([a-z][a-z-]+)(?:[= ].*)?$`)
	// defined is a flag in a program's source.
	defined = regexp.MustCompile(`\bf\.[A-Z]\w+\((?:&?[\w.]+, )?"([a-z-]+)"`)
	file    = regexp.MustCompile(`^(cmd|daemon|docs|install|pkg|plugins|test)/[\w./-]*$`)
)

// pages are the texts by their paths from the root.
func pages(t *testing.T) map[string]string {
	texts := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md"} {
		paths, err := fs.Glob(os.DirFS(root), pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range paths {
			texts[path] = read(t, path)
		}
	}
	return texts
}

func read(t *testing.T, path string) string {
	b, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// commands are what the pages tell readers to type, in blocks and in lines.
func commands(text string) []string {
	var all []string
	for _, m := range fence.FindAllStringSubmatch(text, -1) {
		all = append(all, m[1])
	}
	for _, m := range code.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		all = append(all, m[1])
	}
	return all
}

func anchors(text string) map[string]bool {
	known := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		name := notAnchor.ReplaceAllString(strings.ToLower(m[1]), "")
		known[strings.ReplaceAll(name, " ", "-")] = true
	}
	return known
}

func TestLinks(t *testing.T) {
	texts := pages(t)
	for page, text := range texts {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(m[1], "#")
			to := page
			if path != "" {
				to = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s links to %s, which is nowhere", page, m[1])
			} else if anchor != "" && !anchors(texts[to])[anchor] {
				t.Errorf("%s links to %s: %s has no such heading", page, m[1], to)
			}
		}
	}
}

func TestCommands(t *testing.T) {
	makefile := read(t, "Makefile")
	targets := regexp.MustCompile(`(?m)^([a-z0-9-]+):`).FindAllStringSubmatch(makefile, -1)
	for page, text := range pages(t) {
		for _, line := range commands(text) {
			for _, m := range target.FindAllStringSubmatch(line, -1) {
				if !slices.ContainsFunc(targets, func(t []string) bool { return t[1] == m[1] }) {
					t.Errorf("%s names `make %s`, which the Makefile does not have", page, m[1])
				}
			}
			for _, m := range variable.FindAllStringSubmatch(line, -1) {
				if !regexp.MustCompile(`\b` + m[1] + `\b`).MatchString(makefile) {
					t.Errorf("%s sets %s for make, which the Makefile does not know", page, m[1])
				}
			}
		}
	}
}

// What ingress.md says of flags is about poplin-ingress; elsewhere the program
// stands before them.
func TestFlags(t *testing.T) {
	known := map[string]bool{}
	for _, program := range []string{"poplind", "poplin-ingress"} {
		sources, err := filepath.Glob(filepath.Join(root, "cmd", program, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, source := range sources {
			for _, m := range defined.FindAllStringSubmatch(read(t, strings.TrimPrefix(source, root+"/")), -1) {
				known[program+" "+m[1]] = true
			}
		}
	}
	found := 0
	for page, text := range pages(t) {
		for _, m := range code.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			o := option.FindStringSubmatch(m[1])
			if o == nil || o[1] == "" && page != "docs/ingress.md" {
				continue
			}
			found++
			if program := cmp.Or(o[1], "poplin-ingress"); o[2] != "h" && !known[program+" "+o[2]] {
				t.Errorf("%s has `%s`: %s has no flag -%s", page, m[1], program, o[2])
			}
		}
	}
	if found < 10 {
		t.Errorf("%d flags: is the pattern right?", found)
	}
}

func TestFiles(t *testing.T) {
	for page, text := range pages(t) {
		for _, m := range code.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if !file.MatchString(m[1]) {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, m[1])); err != nil {
				t.Errorf("%s names `%s`, which is nowhere", page, m[1])
			}
		}
	}
}

// YAML is more than JSON, so one parser reads both.
func TestBlocksParse(t *testing.T) {
	labelled := regexp.MustCompile("(?ms)^```(?:json|yaml)\n(.*?)^```$")
	for page, text := range pages(t) {
		for _, m := range labelled.FindAllStringSubmatch(text, -1) {
			for _, document := range strings.Split(m[1], "\n---\n") {
				if err := yaml.Unmarshal([]byte(document), new(any)); err != nil {
					t.Errorf("%s: %v in\n%s", page, err, document)
				}
			}
		}
	}
}

// A block whose keys are all of the configuration is some of it.
func TestConfiguration(t *testing.T) {
	keys := map[string]bool{"apiVersion": true, "kind": true}
	for field := range reflect.TypeFor[config.Config]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		keys[name] = true
	}
	found := 0
	for page, text := range pages(t) {
		for _, m := range fence.FindAllStringSubmatch(text, -1) {
			var block map[string]any
			if yaml.Unmarshal([]byte(m[1]), &block) != nil || len(block) == 0 {
				continue
			}
			if slices.ContainsFunc(slices.Collect(maps.Keys(block)), func(k string) bool { return !keys[k] }) {
				continue
			}
			found++
			whole := m[1]
			if block["kind"] == nil {
				whole = "apiVersion: config.poplin.dev/v1alpha1\nkind: Configuration\n" + whole
			}
			if _, err := config.Parse([]byte(whole)); err != nil {
				t.Errorf("%s has a configuration that is none: %v\n%s", page, err, m[1])
			}
		}
	}
	if found == 0 {
		t.Error("no page has any configuration: is the pattern right?")
	}
}

// TestPromises: what README.md says works, testing.md has a test for.
func TestPromises(t *testing.T) {
	said := regexp.MustCompile(`(?m)^\| (.*) \| works \|$`).FindAllStringSubmatch(read(t, "README.md"), -1)
	held := regexp.MustCompile("(?m)^\\| (.*) \\| .*`(?:Test|make )\\S.* \\|$").FindAllStringSubmatch(read(t, "docs/testing.md"), -1)
	plain := regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`)
	for _, m := range said {
		promise := plain.ReplaceAllString(m[1], "$1")
		if !slices.ContainsFunc(held, func(h []string) bool { return h[1] == promise }) {
			t.Errorf("README.md promises %q: docs/testing.md has no line for it with a test", promise)
		}
	}
	if len(said) < 10 {
		t.Errorf("%d promises: is the pattern right?", len(said))
	}
}
