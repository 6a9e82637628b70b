// Package await polls: what another program or goroutine does takes effect a
// moment later. In: a check and how long it may fail; out: a failed test with
// the check's last error. It refuses to sleep longer than it must.
package await

import (
	"testing"
	"time"
)

// Success returns when check does without an error, and fails the test when
// it does not within the given time.
func Success(t testing.TB, within time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", within, err)
		}
		time.Sleep(within / 200)
	}
}
