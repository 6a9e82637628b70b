//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
)

// configure changes keys of the configuration until the test ends; the daemon
// of node is started again for it, and again at the end.
func configure(t *testing.T, c *cluster.Cluster, node string, keys object) {
	t.Helper()
	const at = "/api/v1/namespaces/poplin-system/configmaps/poplin-config"
	admin := administrator(t, c)
	var now struct{ Data map[string]string }
	get(t, c, &now, "configmap", "poplin-config", "-n", "poplin-system")
	put := func(text string) {
		t.Helper()
		ctx := context.WithoutCancel(t.Context())
		if err := admin.do(ctx, http.MethodPatch, at, object{"data": object{"config.yaml": text}}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Kubectl(ctx, "-n", "poplin-system", "delete", "pod", "-l", "app.kubernetes.io/name=poplind", "--field-selector=spec.nodeName="+node); err != nil {
			t.Fatal(err)
		}
		await.Success(t, time.Minute, func() error {
			out, err := c.Exec(ctx, node, "curl", "-s", "-f", "http://127.0.0.1:9411/readyz")
			if err == nil {
				_, err = c.Kubectl(ctx, "-n", "poplin-system", "rollout", "status", "daemonset/poplind", "--timeout=1s")
			}
			if err != nil {
				return fmt.Errorf("%s: %w", out, err)
			}
			return nil
		})
	}
	old := now.Data["config.yaml"]
	config := object{}
	if err := yaml.Unmarshal([]byte(old), &config); err != nil {
		t.Fatal(err)
	}
	for key, value := range keys {
		config[key] = value
	}
	text, err := yaml.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { put(old) })
	put(string(text))
}

// Metrics on a node's addresses are for those who may read them, as the API
// server says.
func TestMetricsOnTheNodesAddress(t *testing.T) {
	c := shared(t)
	root, err := cluster.ProjectRoot()
	if err != nil {
		t.Fatal(err)
	}
	options := filepath.Join(root, "install/manifests/options/metrics.yaml")
	kubectl := func(args ...string) string {
		t.Helper()
		out, err := c.Kubectl(context.WithoutCancel(t.Context()), args...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	scrape := func(headers ...string) (code, body string) {
		t.Helper()
		args := []string{"curl", "-s", "-k", "-m", "20", "-w", "\n%{http_code}"}
		for _, h := range headers {
			args = append(args, "-H", h)
		}
		// From another node, as Prometheus would.
		out, err := c.Exec(t.Context(), "worker-2", append(args, "https://"+nodes(t, c)[0].addresses[0].String()+":9410/metrics")...)
		if err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		text := strings.TrimSpace(string(out))
		i := strings.LastIndex(text, "\n")
		return text[i+1:], text[:max(0, i)]
	}
	expect := func(who, want string, headers ...string) {
		t.Helper()
		code, body := scrape(headers...)
		if code != want || (code == "200") != strings.Contains(body, "poplin_peers ") {
			t.Errorf("%s: %s, want %s\n%.300s", who, code, want, body)
		}
	}
	for _, account := range []string{"scraper", "nobody"} {
		kubectl("create", "serviceaccount", account)
		t.Cleanup(func() { kubectl("delete", "serviceaccount", account) })
	}
	token := func(account string) string { return "Authorization: Bearer " + kubectl("create", "token", account) }

	configure(t, c, "worker-1", object{"metrics": object{"address": ":9410"}})
	expect("before the daemons may ask", "503", token("scraper"))
	kubectl("apply", "-f", options)
	t.Cleanup(func() { kubectl("delete", "-f", options) })
	kubectl("create", "clusterrolebinding", "scraper-reads-poplin", "--clusterrole=poplin-metrics-reader", "--serviceaccount=default:scraper")
	t.Cleanup(func() { kubectl("delete", "clusterrolebinding", "scraper-reads-poplin") })
	await.Success(t, 20*time.Second, func() error { // authorizers learn of it in a moment
		if code, body := scrape(token("scraper")); code != "200" {
			return fmt.Errorf("%s: %s", code, body)
		}
		return nil
	})
	expect("an account with the right", "200", token("scraper"))
	expect("an account without the right", "403", token("nobody"))
	expect("a token of nobody", "401", "Authorization: Bearer x.y.z")
	expect("no token", "401")
	if out, err := c.Exec(t.Context(), "worker-1", "curl", "-s", "-m", "5", "http://127.0.0.1:9410/metrics"); strings.Contains(string(out), "poplin_peers") {
		t.Errorf("without TLS: %.300s, %v", out, err)
	}
}
