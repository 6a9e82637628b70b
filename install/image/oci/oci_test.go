package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func sample(t *testing.T, compress bool) Archive {
	t.Helper()
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, []byte("ELF"), 0o755); err != nil {
		t.Fatal(err)
	}
	image := Image{
		Platform:   "linux/amd64",
		Entrypoint: []string{"/program"},
		Labels:     map[string]string{"a": "b"},
		Files: []File{
			{Path: "/usr/bin/program", Mode: 0o755, Source: source},
			{Path: "/etc/passwd", Mode: 0o644, Content: []byte("root")},
			{Path: "/tmp", Mode: fs.ModeDir | fs.ModeSticky | 0o777},
			{Path: "/bin", Mode: fs.ModeSymlink, Link: "usr/bin"},
		},
	}
	arm := image
	arm.Platform = "linux/arm64/v8"
	return Archive{Names: []string{"example.org:5000/thing:v1", "example.org:5000/thing:v2"}, Images: []Image{image, arm}, Compress: compress}
}

// entries reads an archive by the paths of its entries.
func entries(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	found := map[string][]byte{}
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.IsZero() && h.ModTime.Unix() != 0 || h.Uid != 0 || h.Gid != 0 {
			t.Errorf("%s: time %v, owner %d:%d; want zero", h.Name, h.ModTime, h.Uid, h.Gid)
		}
		b, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		found[h.Name] = b
	}
}

func decode[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return v
}

func TestWriteSameInputSameBytes(t *testing.T) {
	for _, compress := range []bool{false, true} {
		dir := t.TempDir()
		var want []byte
		for _, name := range []string{"one.tar", "two.tar"} {
			a := sample(t, compress)
			slices.Reverse(a.Images[0].Files)
			if name == "two.tar" {
				a = sample(t, compress)
			}
			if err := a.Write(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			if want != nil && !bytes.Equal(want, b) {
				t.Errorf("compress=%v: two writes of the same image differ", compress)
			}
			want = b
		}
		if left, _ := filepath.Glob(dir + "/.*"); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
	}
}

func TestWriteLayout(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image.tar")
	if err := sample(t, true).Write(path); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := entries(t, f)
	blob := func(h v1.Hash) []byte {
		b, ok := found["blobs/sha256/"+h.Hex]
		if !ok {
			t.Fatalf("no blob %s", h)
		}
		return b
	}
	index := decode[v1.IndexManifest](t, found["index.json"])
	var names []string
	for _, d := range index.Manifests {
		names = append(names, d.Annotations[annotationName], d.Annotations[annotationRef])
	}
	if got := strings.Join(names, " "); got != "example.org:5000/thing:v1 v1 example.org:5000/thing:v2 v2" {
		t.Errorf("names: %s", got)
	}
	platforms := decode[v1.IndexManifest](t, blob(index.Manifests[0].Digest))
	if len(platforms.Manifests) != 2 || platforms.Manifests[1].Platform.String() != "linux/arm64/v8" {
		t.Fatalf("platforms: %+v", platforms.Manifests)
	}
	manifest := decode[v1.Manifest](t, blob(platforms.Manifests[0].Digest))
	config := decode[v1.ConfigFile](t, blob(manifest.Config.Digest))
	if !slices.Equal(config.Config.Entrypoint, []string{"/program"}) || config.Config.Labels["a"] != "b" {
		t.Errorf("config: %+v", config.Config)
	}
	plain, err := gzip.NewReader(bytes.NewReader(blob(manifest.Layers[0].Digest)))
	if err != nil {
		t.Fatal(err)
	}
	layer := entries(t, plain)
	want := []string{"bin", "etc/", "etc/passwd", "tmp/", "usr/", "usr/bin/", "usr/bin/program"}
	for _, name := range want {
		if _, ok := layer[name]; !ok {
			t.Errorf("layer lacks %s", name)
		}
	}
	if len(layer) != len(want) {
		t.Errorf("layer has %d entries, want %d", len(layer), len(want))
	}
}

func TestTree(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(root+"/a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(root+"/a/b/c", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("b/c", root+"/a/link"); err != nil {
		t.Fatal(err)
	}
	files, err := Tree(root)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range files {
		got = append(got, f.Path+" "+f.Mode.String())
	}
	if s := strings.Join(got, ","); s != "a drwxr-xr-x,a/b drwxr-xr-x,a/b/c -rw-------,a/link Lrwxrwxrwx" {
		t.Error(s)
	}
}

func TestRefused(t *testing.T) {
	image := func(files ...File) Archive {
		return Archive{Names: []string{"a:b"}, Images: []Image{{Platform: "linux/amd64", Files: files}}}
	}
	file := func(path string) File { return File{Path: path, Content: []byte("x")} }
	for want, a := range map[string]Archive{
		"no name":               {Images: []Image{{Platform: "linux/amd64"}}},
		"no tag":                {Names: []string{"host:5000/a"}, Images: []Image{{Platform: "linux/amd64"}}},
		"no platform":           {Names: []string{"a:b"}},
		"want os/architecture":  {Names: []string{"a:b"}, Images: []Image{{Platform: "amd64"}}},
		"is given twice":        image(file("/x"), file("x")),
		"inside the image":      image(file("../x")),
		"is not a directory":    image(file("x"), file("x/y")),
		"no such file":          image(File{Path: "x", Source: "/nonexistent"}),
		"linux/amd64 is given ": {Names: []string{"a:b"}, Images: []Image{{Platform: "linux/amd64"}, {Platform: "linux/amd64"}}},
	} {
		err := a.Write(filepath.Join(t.TempDir(), "x.tar"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
