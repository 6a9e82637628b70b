package live

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/cluster"
)

// Daemon is the process id of the poplind that runs on a node, or 0.
func Daemon(t testing.TB, c *cluster.Cluster, node string) int {
	t.Helper()
	var want, have unix.Stat_t
	if err := unix.Stat(c.Namespace(node), &want); err != nil {
		t.Fatal(err)
	}
	programs, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range programs {
		comm, err := os.ReadFile(path)
		if err != nil || string(comm) != "poplind\n" {
			continue
		}
		process := filepath.Dir(path)
		// Its init container has the name too, and ends soon.
		args, err := os.ReadFile(process + "/cmdline")
		if err != nil || !bytes.Contains(args, []byte("--config=")) {
			continue
		}
		if unix.Stat(process+"/ns/net", &have) == nil && have.Ino == want.Ino {
			pid, _ := strconv.Atoi(filepath.Base(process))
			return pid
		}
	}
	return 0
}
