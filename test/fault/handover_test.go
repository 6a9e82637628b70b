//go:build e2e

package fault

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/webapp"
)

// TestHandOverFromKubeProxy: Services are switched on beside a kube-proxy, then
// that goes, and then the way back; a client that never stops asking notices
// nothing, and neither leaves anything of itself.
func TestHandOverFromKubeProxy(t *testing.T) {
	c := live.Temporary(t, cluster.Options{Name: "fault-proxy", Nodes: 2, Network: "poplin", Proxy: "kube-proxy"})
	root, err := cluster.ProjectRoot()
	if err != nil {
		t.Fatal(err)
	}
	if err := webapp.Deploy(t.Context(), c.Kubectl, root); err != nil {
		t.Fatal(err)
	}
	probes, err := webapp.Pods(t.Context(), c.Kubectl, "app=probe")
	if err != nil {
		t.Fatal(err)
	}
	ways, err := webapp.Ways(t.Context(), c.Kubectl)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	ask := func() error {
		answers, err := webapp.Get(t.Context(), c.Kubectl, probes[asked%len(probes)].Name, ways)
		for i, a := range answers {
			if asked++; !strings.HasPrefix(a, "web-app-") {
				err = fmt.Errorf("%s answered %q", ways[i], a)
			}
		}
		return err
	}
	await.Success(t, time.Minute, ask) // kube-proxy has them a moment after the API server
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := ask(); err != nil {
				t.Errorf("after %d requests: %v", asked, err)
				return
			}
		}
	}()
	tables := func(want, unwanted string) {
		t.Helper()
		for _, node := range c.Nodes() {
			await.Success(t, time.Minute, func() error {
				list := on(t, c, node, "nft", "list", "tables")
				if !strings.Contains(list, want) || strings.Contains(list, unwanted) {
					return fmt.Errorf("%s has the tables\n%s", node, list)
				}
				return nil
			})
		}
	}
	const theirs, ours = "kube-proxy", "poplin-services"
	tables(theirs, ours)

	serve(t, c, true)
	for _, node := range c.Nodes() {
		if err := c.KillDaemon(t.Context(), "kube-proxy-"+node); err != nil {
			t.Fatal(err)
		}
	}
	tables(ours, theirs)

	for _, node := range c.Nodes() {
		if err := c.StartDaemon("kube-proxy-" + node); err != nil {
			t.Fatal(err)
		}
	}
	await.Success(t, time.Minute, func() error { // its rules are there when it says so
		for _, node := range c.Nodes() {
			if _, err := c.Exec(t.Context(), node, "curl", "-sf", "http://127.0.0.1:10249/healthz"); err != nil {
				return err
			}
		}
		return nil
	})
	serve(t, c, false)
	tables(theirs, ours)
	close(stop)
	<-done
	t.Logf("%d requests, each answered", asked)
}

// serve switches Poplin's Services on or off, and waits for every daemon.
func serve(t *testing.T, c *cluster.Cluster, on bool) {
	t.Helper()
	var config map[string]any
	if err := yaml.Unmarshal([]byte(run(t, c, "-n", "poplin-system", "get", "configmap", "poplin-config", "-o", `jsonpath={.data.config\.yaml}`)), &config); err != nil {
		t.Fatal(err)
	}
	config["services"].(map[string]any)["enabled"] = on
	text, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	patch, err := json.Marshal(map[string]any{"data": map[string]string{"config.yaml": string(text)}})
	if err != nil {
		t.Fatal(err)
	}
	run(t, c, "-n", "poplin-system", "patch", "configmap", "poplin-config", "--type=merge", "-p", string(patch))
	run(t, c, "-n", "poplin-system", "rollout", "restart", "daemonset/poplind")
	run(t, c, "-n", "poplin-system", "rollout", "status", "daemonset/poplind", "--timeout=120s")
}
