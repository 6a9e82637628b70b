package live

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
)

// Daemon is the process id of the poplind that runs on a node, or 0. Its init
// container has the name too, but other arguments.
func Daemon(t testing.TB, c *cluster.Cluster, node string) int {
	t.Helper()
	return Process(t, c.Namespace(node), "poplind", "--config=")
}

// Process is the id of a program in the network namespace that a file names,
// with that in its arguments, or 0.
func Process(t testing.TB, namespace, program, argument string) int {
	t.Helper()
	var want, have unix.Stat_t
	if err := unix.Stat(namespace, &want); err != nil {
		t.Fatal(err)
	}
	programs, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range programs {
		comm, err := os.ReadFile(path)
		if err != nil || string(comm) != program+"\n" {
			continue
		}
		process := filepath.Dir(path)
		args, err := os.ReadFile(process + "/cmdline")
		if err != nil || !bytes.Contains(args, []byte(argument)) {
			continue
		}
		if unix.Stat(process+"/ns/net", &have) == nil && have.Ino == want.Ino {
			pid, _ := strconv.Atoi(filepath.Base(process))
			return pid
		}
	}
	return 0
}

// Gone waits until a node has no network namespace in these files any more. A pod
// without grace is out of the API server before the runtime takes its network down.
func Gone(t testing.TB, c *cluster.Cluster, node string, namespaces ...string) {
	t.Helper()
	for _, file := range namespaces {
		await.Success(t, time.Minute, func() error {
			if _, err := c.Exec(context.WithoutCancel(t.Context()), node, "test", "!", "-e", file); err != nil {
				return fmt.Errorf("%s still has the network namespace %s: %w", node, file, err)
			}
			return nil
		})
	}
}
