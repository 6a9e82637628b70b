// Package version says which build this is. The Makefile sets both variables
// when it links; a plain `go build` leaves them as they stand here.
package version

import "fmt"

var (
	// Version is a semantic version, or what git describe says.
	Version = "dev"
	// Commit is the git commit the build came from.
	Commit = "unknown"
)

// String is what a program's --version prints after its name.
func String() string { return fmt.Sprintf("%s (commit %s)", Version, Commit) }
