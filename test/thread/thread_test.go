package thread_test

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/thread"
)

// However often it is done, the process keeps its own view of the machine, and
// no thread stays in another.
func TestDiscard(t *testing.T) {
	need.Root(t)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if err := thread.Discard(func() error {
			if unix.Gettid() == unix.Getpid() {
				return errors.New("on the main thread")
			}
			return unix.Unshare(unix.CLONE_NEWNET)
		}); err != nil {
			t.Fatal(err)
		}
		runtime.Gosched()
	}
	if now, err := os.Readlink("/proc/self/ns/net"); err != nil || now != own {
		t.Errorf("the process moved from %s to %s, %v", own, now, err)
	}
	// What unlocked goroutines run on has never been elsewhere.
	for range 100 {
		now := make(chan string)
		go func() {
			link, err := os.Readlink("/proc/thread-self/ns/net")
			now <- fmt.Sprint(link, err)
		}()
		if got := <-now; got != fmt.Sprint(own, error(nil)) {
			t.Errorf("a goroutine runs in %s, want %s", got, own)
		}
	}
}
