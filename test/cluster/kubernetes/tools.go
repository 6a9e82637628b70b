//go:build tools

// Package kubernetes holds no code: it is the list of programs of a real
// Kubernetes that test/cluster builds (the tool lines of go.mod). The import
// below keeps the dependencies of the conformance suite, which is built with
// `go test -c`, in go.mod.
package kubernetes

import _ "k8s.io/kubernetes/test/e2e"
