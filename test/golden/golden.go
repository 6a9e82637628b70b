// Package golden compares text with what a file says it should be. In: a test, a
// path and a text; out: a failed test where they differ. go test -update writes
// the files anew. It refuses to judge: what a changed file says, people read.
package golden

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Equal fails the test where the file says something else.
func Equal(t testing.TB, path, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s (go test -update accepts):\n%s\nwant\n%s", path, got, want)
	}
}
