//go:build tools

// Package containerd holds no code: the tool lines of go.mod are the programs
// of a containerd newer than Debian 12's, which speaks CNI 1.1.
package containerd
