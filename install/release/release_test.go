package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSection(t *testing.T) {
	const text = "# Changes\n\n## Unreleased\n\n- a\n\n## 1.1.0 - 2026-01-01\n\n### Added\n- b\n\n## 1.0.0\n- c\n"
	for title, want := range map[string]string{"Unreleased": "- a\n", "1.1.0": "### Added\n- b\n", "1.0.0": "- c\n", "2.0.0": ""} {
		got, found := section(text, title)
		if got != want || found != (want != "") {
			t.Errorf("%s: %q %v, want %q", title, got, found, want)
		}
	}
}

func TestManifestsNameTheImages(t *testing.T) {
	t.Chdir("../..")
	r := release{version: "v1.2.3", image: "registry.example:5000/x", out: t.TempDir()}
	if err := r.manifests(); err != nil {
		t.Fatal(err)
	}
	names := 0
	for _, file := range []string{"poplin.yaml", "poplin-ingress.yaml", "cleanup.yaml"} {
		b, err := os.ReadFile(filepath.Join(r.out, file))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(b), ":dev") {
			t.Errorf("%s still names an image of a developer", file)
		}
		names += strings.Count(string(b), "image: registry.example:5000/x/poplin:v1.2.3\n") + strings.Count(string(b), "image: registry.example:5000/x/poplin-ingress:v1.2.3\n")
	}
	if names < 4 {
		t.Errorf("%d images are named, want 4 at least", names)
	}
}

func TestArchivesAreTheSame(t *testing.T) {
	files := []entry{{name: "a/b", content: "text", mode: 0o644}, {name: "c", source: "main.go", mode: 0o755}}
	var before []byte
	for range 2 {
		path := filepath.Join(t.TempDir(), "x.tar.gz")
		if err := writeArchive(path, "x", files); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if before != nil && !bytes.Equal(before, b) {
			t.Error("the same files make another archive")
		}
		before = b
	}
	if err := writeArchive(filepath.Join(t.TempDir(), "y"), "y", []entry{{name: "a", source: "nothing"}}); err == nil {
		t.Error("an archive of a file that is not there")
	}
}
