package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
)

const (
	staticLabel = "poplin.dev/static"
	staticPod   = "/etc/kubernetes/manifests/poplind.yaml"
	// staticLimit is how long a kubelet may take to start or end a daemon.
	staticLimit = 2 * time.Minute
)

// Static makes the daemon of a node a static pod until the test ends, as
// docs/install.md tells people to.
func Static(t testing.TB, c *cluster.Cluster, node string) {
	t.Helper()
	root, err := cluster.ProjectRoot()
	if err != nil {
		t.Fatal(err)
	}
	manifests := filepath.Join(root, "install/manifests/static")
	kubectl := func(args ...string) []byte {
		t.Helper()
		out, err := c.Kubectl(context.WithoutCancel(t.Context()), args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	kubectl("apply", "-f", filepath.Join(manifests, "rbac.yaml"))
	config := kubectl("-n", "poplin-system", "get", "configmap", "poplin-config", "-o", `jsonpath={.data.config\.yaml}`)
	credentials, err := os.ReadFile(c.KubeletKubeconfig(node))
	if err != nil {
		t.Fatal(err)
	}
	pod, err := os.ReadFile(filepath.Join(manifests, "pod.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(nodePath(t, c, node, staticPod)); err != nil {
			t.Error(err)
		}
		await.Success(t, staticLimit, func() error { return daemons(c, node) })
		kubectl("label", "node", node, staticLabel+"-")
		await.Success(t, staticLimit, func() error { return daemons(c, node, true) })
	})
	kubectl("label", "node", node, staticLabel+"=")
	await.Success(t, staticLimit, func() error { return daemons(c, node) })
	for path, text := range map[string][]byte{"/etc/poplin/config.yaml": config, "/etc/kubernetes/kubelet.conf": credentials} {
		Place(t, nodePath(t, c, node, path), text)
	}
	Place(t, nodePath(t, c, node, staticPod), pod)
	await.Success(t, staticLimit, func() error { return daemons(c, node, true) })
}

func nodePath(t testing.TB, c *cluster.Cluster, node, path string) string {
	t.Helper()
	outside, err := c.Path(node, path)
	if err != nil {
		t.Fatal(err)
	}
	return outside
}

// Place writes a file that is whole or not there. The kubelet, which watches
// the folder of manifests, sees no file whose name begins with a dot.
func Place(t testing.TB, path string, text []byte) {
	t.Helper()
	hidden := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err := errors.Join(err, os.WriteFile(hidden, text, 0o600), os.Rename(hidden, path)); err != nil {
		t.Fatal(err)
	}
}

// daemons is an error unless the pods of poplind on a node are as many, each
// ready or not, as is said.
func daemons(c *cluster.Cluster, node string, want ...bool) error {
	out, err := c.Kubectl(context.Background(), "-n", "poplin-system", "get", "pods", "-o", "json",
		"-l", "app.kubernetes.io/name=poplind", "--field-selector=spec.nodeName="+node)
	if err != nil {
		return err
	}
	var list struct {
		Items []struct {
			Status struct {
				ContainerStatuses []struct{ Ready bool }
			}
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return err
	}
	var got []bool
	for _, i := range list.Items {
		got = append(got, len(i.Status.ContainerStatuses) == 1 && i.Status.ContainerStatuses[0].Ready)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		return fmt.Errorf("daemons on %s, ready or not: %v, want %v", node, got, want)
	}
	return nil
}
