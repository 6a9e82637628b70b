package images

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"poplin.dev/poplin/install/image/oci"
	"poplin.dev/poplin/test/need"
)

func TestNames(t *testing.T) {
	archive := filepath.Join(t.TempDir(), "x.tar")
	want := []string{"example.org/x:1", "example.org/x:2"}
	if err := (oci.Archive{Names: want, Images: []oci.Image{{Platform: "linux/amd64"}}}).Write(archive); err != nil {
		t.Fatal(err)
	}
	if got, err := Names(archive); err != nil || !slices.Equal(got, want) {
		t.Errorf("Names: %v, %v", got, err)
	}
	if err := os.WriteFile(archive, make([]byte, 1024), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Names(archive); err == nil || !strings.Contains(err.Error(), "no OCI archive") {
		t.Errorf("an empty archive: %v", err)
	}
}

// The set is named after what goes into it.
func TestFind(t *testing.T) {
	programs := t.TempDir()
	lookup := func(string) string { return filepath.Join(programs, "program") }
	write := func(content string) {
		if err := os.WriteFile(lookup(""), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	source := Source{Root: "../../..", Programs: programs, Agnhost: "2", CoreDNS: "v1", Lookup: lookup}
	find := func(s Source) string {
		t.Helper()
		set, err := s.Find("cache")
		if err != nil {
			t.Fatal(err)
		}
		return set.Dir
	}
	write("a")
	first := find(source)
	if find(source) != first {
		t.Error("the same source gives two names")
	}
	other := source
	other.CoreDNS = "v2"
	if find(other) == first {
		t.Error("another CoreDNS gives the same name")
	}
	write("another program")
	if find(source) == first {
		t.Error("another program gives the same name")
	}
	source.Lookup = func(string) string { return "" }
	if _, err := source.Find("cache"); err == nil || !strings.Contains(err.Error(), "is missing; install it first") {
		t.Errorf("a missing program: %v", err)
	}
}

// A planted directory shares what never changes, and nothing else.
func TestPlant(t *testing.T) {
	dir := t.TempDir()
	set := Set{Dir: filepath.Join(dir, "set")}
	blob := "io.containerd.content.v1.content/blobs/sha256/x"
	layer := "io.containerd.snapshotter.v1.overlayfs/snapshots/1/fs/tmp/file"
	database := "io.containerd.metadata.v1.bolt/meta.db"
	for _, name := range []string{blob, layer, database} {
		path := filepath.Join(set.Dir, "seed", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(name), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Dir(filepath.Join(set.Dir, "seed", layer)), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	node := filepath.Join(dir, "node")
	for range 2 { // the second finds it planted
		if err := set.Plant(node); err != nil {
			t.Fatal(err)
		}
	}
	same := func(name string) bool {
		a, err := os.Stat(filepath.Join(set.Dir, "seed", name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.Stat(filepath.Join(node, name))
		if err != nil {
			t.Fatal(err)
		}
		if a.Mode() != b.Mode() {
			t.Errorf("%s: mode %v, want %v", name, b.Mode(), a.Mode())
		}
		return os.SameFile(a, b)
	}
	if !same(blob) || !same(layer) || same(database) {
		t.Error("want shared content and layers, and a database of the node's own")
	}
	same(filepath.Dir(layer))
}

// The libraries of a program come along with it.
func TestProgram(t *testing.T) {
	shell := need.Program(t, "bash", "bash")
	c := &composer{ctx: t.Context(), find: func(string) string { return shell }}
	if err := c.program("bash", "/bin/sh"); err != nil {
		t.Fatal(err)
	}
	files := c.take()
	if len(files) < 2 || !slices.ContainsFunc(files, func(f oci.File) bool { return f.Path == "/bin/sh" }) {
		t.Errorf("%+v", files)
	}
	if c.take() != nil {
		t.Error("the next image begins with the last one's files")
	}
}
