package install

import "embed"

// Manifest installs Poplin on a cluster: the content of manifests/poplin.yaml.
//
//go:embed manifests/poplin.yaml
var Manifest []byte

// Manifests are all of them, below the directory manifests.
//
//go:embed manifests
var Manifests embed.FS
