package space

import (
	"os/exec"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"

	"poplin.dev/poplin/test/need"
)

// Enter runs the rest of a test in a network namespace of its own: the thread
// is never unlocked, and goes with the test's goroutine.
func Enter(t testing.TB) {
	t.Helper()
	need.Root(t)
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("make network namespace: %v", err)
	}
	ns.Close()
}

// Nft runs nft(8) in the namespace of the calling thread and returns what it
// prints.
func Nft(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(need.Program(t, "nft", "nftables"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v\n%s", args, err, out)
	}
	return string(out)
}
