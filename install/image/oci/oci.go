// Package oci writes container images without a container engine. In: the
// files and the configuration of an image, for one platform or several, and
// its names. Out: one tar archive in the OCI image layout that `ctr images
// import` and other tools load. The same input gives the same bytes: entries
// are sorted, times are zero, owners are root. It refuses images without a
// name or a platform, paths that leave the image and two files at one path.
package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is what one platform runs.
type Image struct {
	Platform   string // "linux/amd64"
	Entrypoint []string
	Cmd        []string
	Env        []string
	User       string
	WorkingDir string
	Labels     map[string]string
	Files      []File
}

// Archive is one archive: the same image for one platform or several, under
// any number of names ("registry.example/thing:tag").
type Archive struct {
	Names    []string
	Images   []Image
	Compress bool // gzip the layers, at its fastest
}

// The two annotations by which importers learn an image's name.
const (
	annotationName = "io.containerd.image.name"
	annotationRef  = "org.opencontainers.image.ref.name"
)

// Write makes the archive at path. It appears there complete or not at all.
func (a Archive) Write(path string) error {
	if err := a.check(); err != nil {
		return err
	}
	stage, err := os.MkdirTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return fmt.Errorf("write image %s: %w", path, err)
	}
	defer func() { _ = os.RemoveAll(stage) }()
	out, err := os.Create(filepath.Join(stage, "archive"))
	if err != nil {
		return fmt.Errorf("write image %s: %w", path, err)
	}
	defer out.Close()
	w := &writer{tar: tar.NewWriter(out), stage: stage, written: map[v1.Hash]bool{}}
	if err := w.archive(a); err != nil {
		return fmt.Errorf("write image %s: %w", path, err)
	}
	if err := errors.Join(w.tar.Close(), out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("write image %s: %w", path, err)
	}
	if err := os.Rename(out.Name(), path); err != nil {
		return fmt.Errorf("write image %s: %w", path, err)
	}
	return nil
}

func (a Archive) check() error {
	if len(a.Names) == 0 {
		return errors.New("check image: it has no name; give it one such as registry.example/thing:tag")
	}
	for _, name := range a.Names {
		if _, tag := splitName(name); tag == "" {
			return fmt.Errorf("check image name %q: it has no tag; append one, such as %s:latest", name, name)
		}
	}
	if len(a.Images) == 0 {
		return errors.New("check image: it has no platform")
	}
	seen := map[string]bool{}
	for _, image := range a.Images {
		if strings.Count(image.Platform, "/") < 1 || strings.Count(image.Platform, "/") > 2 {
			return fmt.Errorf("check image platform %q: want os/architecture, such as linux/amd64", image.Platform)
		}
		if seen[image.Platform] {
			return fmt.Errorf("check image: platform %s is given twice", image.Platform)
		}
		seen[image.Platform] = true
	}
	return nil
}

// writer puts blobs into an archive, each once.
type writer struct {
	tar     *tar.Writer
	stage   string
	written map[v1.Hash]bool
}

func (w *writer) archive(a Archive) error {
	layout := []byte(`{"imageLayoutVersion":"1.0.0"}`)
	if err := w.entry("oci-layout", int64(len(layout)), bytes.NewReader(layout)); err != nil {
		return err
	}
	var manifests []v1.Descriptor
	for _, image := range a.Images {
		manifest, err := w.image(image, a.Compress)
		if err != nil {
			return fmt.Errorf("platform %s: %w", image.Platform, err)
		}
		manifests = append(manifests, manifest)
	}
	top := manifests[0]
	if len(manifests) > 1 {
		var err error
		top, err = w.json(types.OCIImageIndex, v1.IndexManifest{
			SchemaVersion: 2, MediaType: types.OCIImageIndex, Manifests: manifests})
		if err != nil {
			return err
		}
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, name := range a.Names {
		named := top
		_, tag := splitName(name)
		named.Annotations = map[string]string{annotationName: name, annotationRef: tag}
		index.Manifests = append(index.Manifests, named)
	}
	b, err := json.Marshal(index)
	if err != nil {
		return err
	}
	return w.entry("index.json", int64(len(b)), bytes.NewReader(b))
}

// image writes one platform's layer, configuration and manifest, and returns
// the descriptor of the manifest.
func (w *writer) image(image Image, compress bool) (v1.Descriptor, error) {
	layer, diffID, err := w.layer(image.Files, compress)
	if err != nil {
		return v1.Descriptor{}, err
	}
	platform, err := v1.ParsePlatform(image.Platform)
	if err != nil {
		return v1.Descriptor{}, err
	}
	epoch := v1.Time{Time: time.Unix(0, 0).UTC()}
	config, err := w.json(types.OCIConfigJSON, v1.ConfigFile{
		Architecture: platform.Architecture, OS: platform.OS, Variant: platform.Variant, Created: epoch,
		Config: v1.Config{
			Entrypoint: image.Entrypoint, Cmd: image.Cmd, Env: image.Env, User: image.User,
			WorkingDir: image.WorkingDir, Labels: image.Labels,
		},
		RootFS:  v1.RootFS{Type: "layers", DiffIDs: []v1.Hash{diffID}},
		History: []v1.History{{Created: epoch, CreatedBy: "poplin.dev/poplin/install/image/oci"}},
	})
	if err != nil {
		return v1.Descriptor{}, err
	}
	manifest, err := w.json(types.OCIManifestSchema1, v1.Manifest{
		SchemaVersion: 2, MediaType: types.OCIManifestSchema1, Config: config, Layers: []v1.Descriptor{layer}})
	manifest.Platform = platform
	return manifest, err
}

// layer stages the layer in a file, because its digest, which is its name in
// the archive, is known only when it is complete.
func (w *writer) layer(files []File, compress bool) (v1.Descriptor, v1.Hash, error) {
	f, err := os.Create(filepath.Join(w.stage, "layer"))
	if err != nil {
		return v1.Descriptor{}, v1.Hash{}, err
	}
	defer f.Close()
	sum := sha256.New()
	diffID, err := writeLayer(io.MultiWriter(f, sum), files, compress)
	if err != nil {
		return v1.Descriptor{}, v1.Hash{}, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return v1.Descriptor{}, v1.Hash{}, err
	}
	d := v1.Descriptor{MediaType: types.OCIUncompressedLayer, Size: size, Digest: hash(sum.Sum(nil))}
	if compress {
		d.MediaType = types.OCILayer
	}
	return d, diffID, w.blob(d.Digest, size, f)
}

func (w *writer) json(kind types.MediaType, value any) (v1.Descriptor, error) {
	b, err := json.Marshal(value)
	if err != nil {
		return v1.Descriptor{}, err
	}
	sum := sha256.Sum256(b)
	d := v1.Descriptor{MediaType: kind, Size: int64(len(b)), Digest: hash(sum[:])}
	return d, w.blob(d.Digest, d.Size, bytes.NewReader(b))
}

func (w *writer) blob(digest v1.Hash, size int64, content io.Reader) error {
	if w.written[digest] {
		return nil
	}
	w.written[digest] = true
	return w.entry("blobs/"+digest.Algorithm+"/"+digest.Hex, size, content)
}

func (w *writer) entry(name string, size int64, content io.Reader) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)}
	if err := w.tar.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(w.tar, content)
	return err
}

func hash(sum []byte) v1.Hash { return v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(sum)} }

// splitName cuts the tag off a name; a colon before the last slash is a port.
func splitName(name string) (repository, tag string) {
	colon := strings.LastIndexByte(name, ':')
	if colon < strings.LastIndexByte(name, '/') || colon < 0 {
		return name, ""
	}
	return name[:colon], name[colon+1:]
}
