// Package fault breaks things while the network works, and looks at what is
// lost or left. `make fault` runs each fault a tenth of its count, `make soak`
// (POPLIN_SOAK=1) its full count. Tests that want a cluster carry the build
// tag e2e; the others make their own network namespaces.
package fault
