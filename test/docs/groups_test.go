package docs

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	groupVersion = regexp.MustCompile(`schema\.GroupVersion\{(?:Group: "([a-z0-9.]+)", )?Version: "(v[a-z0-9]+)"\}`)
	quoted       = regexp.MustCompile(`"([a-z0-9]+(?:\.[a-z0-9]+)*)/(v[0-9][a-z0-9]*)"`)
	apiVersion   = regexp.MustCompile(`(?m)^(?:- )?apiVersion: (?:([a-z0-9.]+)/)?(v[a-z0-9]+)$`)
)

// TestAPIGroups: the page lists every group and version of the API that programs
// and manifests name, no other, and of the API server's own none in alpha or beta.
func TestAPIGroups(t *testing.T) {
	found := map[string]string{} // group/version: a file that names it
	add := func(path, text string, patterns ...*regexp.Regexp) {
		for _, p := range patterns {
			for _, m := range p.FindAllStringSubmatch(text, -1) {
				// Kinds that only files have.
				if m[1] != "config.poplin.dev" && m[1] != "policy.poplin.dev" {
					found[m[1]+"/"+m[2]] = path
				}
			}
		}
	}
	for _, dir := range []string{"pkg/kube", "daemon", "cmd", "install/manifests"} {
		err := fs.WalkDir(os.DirFS(filepath.Join(root, dir)), ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			path = filepath.Join(dir, path)
			switch {
			case strings.HasSuffix(path, ".yaml"):
				add(path, read(t, path), apiVersion)
			case strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go"):
				add(path, read(t, path), groupVersion, quoted)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	listed := map[string]bool{}
	for line := range strings.Lines(read(t, "docs/works-beside.md")) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(strings.TrimSpace(cells[2]), "v1") {
			continue
		}
		for _, group := range strings.Split(strings.TrimSpace(cells[1]), ", ") {
			listed[strings.TrimPrefix(group, "(core)")+"/"+strings.TrimSpace(cells[2])] = true
		}
	}
	if len(found) < 8 {
		t.Errorf("only %v found: are the patterns right?", found)
	}
	for _, gv := range slices.Sorted(maps.Keys(found)) {
		if !listed[gv] {
			t.Errorf("%s names %s, which docs/works-beside.md does not list", found[gv], gv)
		}
		group, version, _ := strings.Cut(gv, "/")
		if (strings.Contains(version, "alpha") || strings.Contains(version, "beta")) && group != "poplin.dev" && group != "policy.networking.k8s.io" {
			t.Errorf("%s names %s, which the API server may drop with any minor version", found[gv], gv)
		}
		delete(listed, gv)
	}
	for gv := range listed {
		t.Errorf("docs/works-beside.md lists %s, which nothing asks for", gv)
	}
}
