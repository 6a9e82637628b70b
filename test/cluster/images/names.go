package images

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Names lists the names of the image in an OCI archive.
func Names(archive string) ([]string, error) {
	f, err := os.Open(archive)
	if err != nil {
		return nil, fmt.Errorf("read image: %w", err)
	}
	defer f.Close()
	for entries := tar.NewReader(f); ; {
		h, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("read image %s: it has no index.json, so it is no OCI archive", archive)
		}
		if err != nil {
			return nil, fmt.Errorf("read image %s: %w", archive, err)
		}
		if h.Name != "index.json" {
			continue
		}
		var index v1.IndexManifest
		if err := json.NewDecoder(entries).Decode(&index); err != nil {
			return nil, fmt.Errorf("read image %s: index.json: %w", archive, err)
		}
		var names []string
		for _, manifest := range index.Manifests {
			names = append(names, manifest.Annotations["io.containerd.image.name"])
		}
		return names, nil
	}
}
