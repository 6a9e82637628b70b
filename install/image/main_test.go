package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"poplin.dev/poplin/install/contents"
)

// unpack reads an archive of files by their names.
func unpack(t *testing.T, r io.Reader) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for archive := tar.NewReader(r); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if files[h.Name], err = io.ReadAll(archive); err != nil {
			t.Fatal(err)
		}
	}
}

// unpackImage reads the configuration and the files of the one image in an
// archive.
func unpackImage(t *testing.T, path string) (config v1.ConfigFile, files map[string][]byte) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blobs := unpack(t, f)
	read := func(name string, v any) {
		if err := json.Unmarshal(blobs[name], v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	blob := func(h v1.Hash) string { return "blobs/sha256/" + h.Hex }
	var index v1.IndexManifest
	var manifest v1.Manifest
	read("index.json", &index)
	read(blob(index.Manifests[0].Digest), &manifest)
	read(blob(manifest.Config.Digest), &config)
	layer, err := gzip.NewReader(bytes.NewReader(blobs[blob(manifest.Layers[0].Digest)]))
	if err != nil {
		t.Fatal(err)
	}
	return config, unpack(t, layer)
}

// TestImageSaysWhatItHolds: what is in the image is in its list of contents, and
// of all that is listed the licence is there. It runs as nobody.
func TestImageSaysWhatItHolds(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", dir+"/", "./cmd/poplin-ingress")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	path := filepath.Join(dir, "image.tar")
	if err := run("poplin-ingress", path, dir, "v1.2.3", []string{runtime.GOARCH}, []string{"example.org/poplin-ingress:v1.2.3"}); err != nil {
		t.Fatal(err)
	}
	config, files := unpackImage(t, path)
	if config.Config.User != "65532:65532" || config.Config.Labels["org.opencontainers.image.version"] != "v1.2.3" {
		t.Errorf("user %q, labels %v", config.Config.User, config.Config.Labels)
	}
	var bom cyclonedx.BOM
	if err := json.Unmarshal(files["usr/share/sbom/poplin-ingress.cdx.json"], &bom); err != nil {
		t.Fatal(err)
	}
	sum, err := contents.Digest(filepath.Join(dir, "poplin-ingress"))
	if err != nil {
		t.Fatal(err)
	}
	modules := 0
	for _, c := range *bom.Components {
		if c.Type == cyclonedx.ComponentTypeApplication {
			if c.Version != "v1.2.3" || (*c.Hashes)[0].Value != sum || len(files[c.Name]) == 0 {
				t.Errorf("%s %s with digest %s: want v1.2.3, %s and the program", c.Name, c.Version, (*c.Hashes)[0].Value, sum)
			}
			continue
		}
		modules++
		of := c.Name + "@" + c.Version
		if c.Name == "stdlib" {
			of = "go"
		}
		if _, found := files["licenses/"+of+"/"]; !found {
			t.Errorf("the licence of %s is not in the image", of)
		}
	}
	if modules < 10 {
		t.Errorf("%d modules are listed, want more", modules)
	}
}
