package live

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"poplin.dev/poplin/test/cluster"
)

// Options returns what patches the daemons' manifest as an administrator does;
// at the end of the test it is what it was, and then is called.
func Options(t testing.TB, c *cluster.Cluster, then func()) (patch func(option string)) {
	t.Helper()
	root, err := cluster.ProjectRoot()
	if err != nil {
		t.Fatal(err)
	}
	var now struct {
		Spec struct{ Template map[string]any }
	}
	if err := json.Unmarshal(system(t, c, "get", "daemonset", "poplind", "-o", "json"), &now); err != nil {
		t.Fatal(err)
	}
	undo, err := json.Marshal([]map[string]any{{"op": "replace", "path": "/spec/template", "value": now.Spec.Template}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		system(t, c, "patch", "daemonset", "poplind", "--type=json", "--patch="+string(undo))
		system(t, c, "rollout", "status", "daemonset/poplind", "--timeout=90s")
		then()
	})
	return func(option string) {
		t.Helper()
		system(t, c, "patch", "daemonset", "poplind", "--type=json", "--patch-file="+filepath.Join(root, "install/manifests/options", option+".yaml"))
		system(t, c, "rollout", "status", "daemonset/poplind", "--timeout=90s")
	}
}

// Inspect lets traces look into pods until the test ends.
func Inspect(t testing.TB, c *cluster.Cluster) {
	t.Helper()
	var config struct{ Data map[string]string }
	if err := json.Unmarshal(system(t, c, "get", "configmap", "poplin-config", "-o", "json"), &config); err != nil {
		t.Fatal(err)
	}
	before := config.Data["config.yaml"]
	set := func(text string) {
		t.Helper()
		patch, err := json.Marshal(map[string]any{"data": map[string]string{"config.yaml": text}})
		if err != nil {
			t.Fatal(err)
		}
		system(t, c, "patch", "configmap", "poplin-config", "--patch", string(patch))
	}
	set(strings.Replace(before, "podInspection: false", "podInspection: true", 1))
	// A new pod has the new file at once.
	Options(t, c, func() { set(before) })("pod-inspection")
}

// system runs kubectl in Poplin's namespace, also when the test has ended.
func system(t testing.TB, c *cluster.Cluster, args ...string) []byte {
	t.Helper()
	out, err := c.Kubectl(context.WithoutCancel(t.Context()), append([]string{"-n", "poplin-system"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
