package live

import (
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"poplin.dev/poplin/test/cluster"
)

// Poplinctl is a person's shell beside the API server.
func Poplinctl(ctx context.Context, t testing.TB, c *cluster.Cluster, args ...string) *exec.Cmd {
	t.Helper()
	root, err := cluster.ProjectRoot()
	if err != nil {
		t.Fatal(err)
	}
	line := append([]string{"--net=" + c.Namespace("worker-1"), "--", filepath.Join(root, "bin", "poplinctl")}, args...)
	return exec.CommandContext(ctx, "nsenter", append(line, "-kubeconfig", c.Kubeconfig())...)
}
