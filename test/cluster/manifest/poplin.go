package manifest

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"poplin.dev/poplin/test/cluster/images"
)

// Poplin is the network, ready to be applied.
type Poplin struct {
	Image    string // archive
	Manifest []byte
}

// Find reads Poplin's manifest and image of a project, unless others are given,
// and configures its daemons. They must fit each other: a wrong image shows
// itself minutes later otherwise.
func Find(root, image, path string, settings Settings) (*Poplin, error) {
	if image == "" {
		image = filepath.Join(root, "dist/poplin-image.tar")
	}
	if path == "" {
		path = filepath.Join(root, "install/manifests/poplin.yaml")
	}
	held, err := images.Names(image)
	if err != nil {
		return nil, fmt.Errorf("find image of Poplin: %w; make it (make image), or choose --network none", err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("find manifest of Poplin: %w; give its place with --manifest, or choose --network none", err)
	}
	fits := slices.ContainsFunc(held, func(name string) bool { return bytes.Contains(b, []byte(name)) })
	if !fits {
		return nil, fmt.Errorf("find image of Poplin: %s asks for none of %s, which is what %s holds; make it with the name of the manifest",
			path, strings.Join(held, ", "), image)
	}
	edited, err := Configure(b, settings)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", path, err)
	}
	return &Poplin{Image: image, Manifest: edited}, nil
}
