package oracle_test

import (
	"log/slog"
	"os"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"

	applyvip "poplin.dev/poplin/pkg/apply/vip"
	"poplin.dev/poplin/pkg/program/vip"
	"poplin.dev/poplin/test/need"
)

// TestTheKernelFollows: the changes of random operations leave the kernel
// with what the table says, batch by batch, also when processes come and go.
func TestTheKernelFollows(t *testing.T) {
	need.Root(t)
	runtime.LockOSThread() // never unlocked: the thread goes with its namespace
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("make network namespace: %v", err)
	}
	defer ns.Close()
	open := func() *applyvip.Table {
		k, err := applyvip.Open(applyvip.Config{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	kernel := open()
	defer func() { kernel.Close() }()
	operations := 1000
	if os.Getenv("POPLIN_SOAK") == "1" {
		operations = 100000
	}
	t.Logf("-seed %d", *seed)
	r := start(*seed, lie{})
	for i := range operations {
		r.step()
		if !r.one(3) {
			continue
		}
		if err := kernel.Apply(r.flush()); err != nil {
			t.Fatalf("operation %d (-seed %d): %v", i, *seed, err)
		}
		if !r.one(5) {
			continue
		}
		if r.one(4) {
			kernel.Close()
			kernel = open()
		}
		kernel.Forget()
		held, err := kernel.Program()
		if err != nil {
			t.Fatal(err)
		}
		if c := vip.Diff(held, r.table.Program()); !c.Empty() {
			t.Fatalf("operation %d (-seed %d): the kernel has too much:\n%sand lacks:\n%s", i, *seed, c.Delete, c.Put)
		}
	}
}
