// Package soak says how often a test repeats what it does. Input is the
// environment: POPLIN_SOAK=1 asks for full counts; output is a number. It
// refuses to be none.
package soak

import "os"

// Full reports whether every full count is asked for.
func Full() bool { return os.Getenv("POPLIN_SOAK") == "1" }

// Times is a full count in a soak, else a tenth of it, at least one.
func Times(full int) int {
	if Full() {
		return full
	}
	return max(full/10, 1)
}
