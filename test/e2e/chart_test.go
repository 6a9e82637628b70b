//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"

	"poplin.dev/poplin/install/chart"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/live"
)

// byHelm installs, upgrades and removes Poplin with Helm.
func byHelm(t *testing.T, c *cluster.Cluster, root string) {
	dir := t.TempDir()
	dist, program := filepath.Join(dir, "dist", "chart"), filepath.Join(dir, "helm")
	live.Go(t, root, "run", "-trimpath", "-buildvcs=false", "./install/chart/write", "-o", dist, "-version", "v0.0.0", "-tag", "dev")
	live.Go(t, filepath.Join(root, "test/cluster/helm"), "build", "-trimpath", "-buildvcs=false", "-o", program, "helm.sh/helm/v3/cmd/helm")

	helm := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), "nsenter", append([]string{"--net=" + c.Namespace(c.Nodes()[0]), "--", program, "--kubeconfig=" + c.Kubeconfig()}, args...)...)
		cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+dir, "HELM_CONFIG_HOME="+dir, "HELM_DATA_HOME="+dir)
		return cmd.CombinedOutput()
	}
	version := "--kube-version=" + c.Kubernetes.Version
	must := func(args ...string) []byte {
		t.Helper()
		out, err := helm(args...)
		if err != nil {
			t.Fatalf("helm %v: %v\n%s", args, err, out)
		}
		return out
	}
	kubectl := func(args ...string) string {
		t.Helper()
		out, err := c.Kubectl(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}

	t.Run("SaysWhatTheManifestsSay", func(t *testing.T) {
		want, got := objects(t, plain(t)), objects(t, must("template", "poplin", dist, version))
		for name, o := range want {
			if !reflect.DeepEqual(got[name], o) {
				w, _ := json.MarshalIndent(o, "", " ")
				g, _ := json.MarshalIndent(got[name], "", " ")
				t.Errorf("%s: the chart has %s\nthe manifest %s", name, g, w)
			}
		}
		if len(got) != len(want) {
			t.Errorf("the chart has %d objects, the manifests %d", len(got), len(want))
		}
	})

	presets, err := filepath.Glob(dist + "/presets/*.yaml")
	if err != nil || len(presets) < 3 {
		t.Fatal(presets, err)
	}
	for _, p := range presets {
		t.Run("Preset="+strings.TrimSuffix(filepath.Base(p), ".yaml"), func(t *testing.T) {
			rendered := filepath.Join(t.TempDir(), "rendered.yaml")
			if err := os.WriteFile(rendered, must("template", "poplin", dist, version, "--values", p), 0o600); err != nil {
				t.Fatal(err)
			}
			if out := kubectl("apply", "--server-side", "--field-manager=preset", "-f", rendered); !strings.Contains(out, "daemonset.apps/poplind serverside-applied") {
				t.Errorf("%s", out)
			}
			kubectl("delete", "--wait=true", "-f", rendered)
		})
	}

	// What poplinctl install prints is what Helm makes of the chart.
	t.Run("Install", func(t *testing.T) {
		made := chart.Chart{Version: "v0.0.0", Registry: "poplin.dev", Tag: "dev"}
		for _, row := range []struct{ preset, set string }{
			{"", "ingress.enabled=false"},
			{"", "options.metrics=true"},
			{"k3s", "options.hostFiles=true"},
			{"kind", "config.trace.podInspection=true"},
			{"kubeadm", "ingress.replicas=3"},
		} {
			setting, err := chart.Setting(row.set)
			if err != nil {
				t.Fatal(err)
			}
			given, args := []chart.Values{setting}, []string{"template", "poplin", dist, version, "--set", row.set}
			if row.preset != "" {
				p, err := chart.Preset(row.preset)
				if err != nil {
					t.Fatal(err)
				}
				given, args = append([]chart.Values{p}, given...), append(args, "--values", dist+"/presets/"+row.preset+".yaml")
			}
			text, err := made.Manifest(given...)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := objects(t, text), objects(t, must(args...)); !reflect.DeepEqual(got, want) {
				g, _ := json.MarshalIndent(got, "", " ")
				w, _ := json.MarshalIndent(want, "", " ")
				t.Errorf("%v: printed\n%s\nHelm has\n%s", row, g, w)
			}
		}
	})

	t.Run("RefusesWhatNothingReads", func(t *testing.T) {
		for set, want := range map[string]string{"config.overlay.mtuu=1400": "mtuu", "image.pullPolicy=3": "pullPolicy"} {
			if out, err := helm("template", "poplin", dist, version, "--set", set); err == nil || !bytes.Contains(out, []byte(want)) {
				t.Errorf("--set %s: %v\n%s", set, err, out)
			}
		}
	})

	for _, image := range []string{"poplin", "poplin-ingress"} {
		if err := c.LoadImage(t.Context(), filepath.Join(root, "dist", image+"-image.tar"), ""); err != nil {
			t.Fatal(err)
		}
	}
	given := []string{"--namespace=kube-system", "--values", dist + "/presets/kubeadm.yaml", "--set", "config.apiServer.endpoints={" + c.Server() + "},ingress.service.type=NodePort", "--wait", "--timeout=180s"}
	// The page's command, and what its words ask for where there is no load
	// balancer.
	for _, s := range installPage(t, root) {
		if s.title == "With Helm" {
			reader{t, c, dir}.run(s.commands[0] + " --set=ingress.service.type=NodePort --wait --timeout=180s")
		}
	}
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(append([]string{"upgrade", "poplin", dist, "--set", "options.netRaw=true,config.logFormat=json"}, given...)...)
	kubectl("-n", "poplin-system", "rollout", "status", "daemonset/poplind", "--timeout=120s") // Helm is content with most of them
	if out := kubectl("-n", "poplin-system", "get", "daemonset", "poplind", "-o", "jsonpath={.spec.template.spec.containers[0].securityContext.capabilities.add} {.status.updatedNumberScheduled} {.status.numberReady}"); out != `["NET_ADMIN","NET_RAW"] 2 2` {
		t.Errorf("after the upgrade: %s", out)
	}
	if log := kubectl("-n", "poplin-system", "logs", "daemonset/poplind", "-c", "poplind", "--tail=1"); !strings.HasPrefix(log, "{") {
		t.Errorf("the configuration was not taken: %s", log)
	}
	must("uninstall", "poplin", "--namespace=kube-system", "--wait", "--timeout=120s")
	if out := kubectl("get", "namespaces,clusterroles,crd,validatingadmissionpolicies", "-l", "app.kubernetes.io/part-of=poplin", "-o", "name"); out != "" {
		t.Errorf("left behind: %s", out)
	}
}

// objects are those of a manifest by kind and name; configuration is read, so
// that only its meaning counts.
func objects(t *testing.T, manifest []byte) map[string]map[string]any {
	t.Helper()
	found := map[string]map[string]any{}
	for d := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(manifest), 4096); ; {
		var u unstructured.Unstructured
		if err := d.Decode(&u.Object); err == io.EOF {
			return found
		} else if err != nil {
			t.Fatal(err)
		}
		if len(u.Object) == 0 {
			continue
		}
		if text, is, _ := unstructured.NestedString(u.Object, "data", "config.yaml"); is {
			var config map[string]any
			if err := yaml.Unmarshal([]byte(text), &config); err != nil {
				t.Fatal(err)
			}
			u.Object["data"] = config
		}
		unstructured.RemoveNestedField(u.Object, "spec", "template", "metadata", "annotations", "checksum/config")
		found[u.GetKind()+"/"+u.GetName()] = u.Object
	}
}
