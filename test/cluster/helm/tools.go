//go:build tools

// Package helm holds no code: the tool line of go.mod is Helm, which the chart
// is tried with.
package helm
