package install

import _ "embed" // for Manifest

// Manifest installs Poplin on a cluster: the content of manifests/poplin.yaml.
//
//go:embed manifests/poplin.yaml
var Manifest []byte
