//go:build e2e

package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	kinds "k8s.io/apimachinery/pkg/runtime"

	"poplin.dev/poplin/install"
	"poplin.dev/poplin/test/cluster"
)

// yamlBlocks are those of a page that say in their language what they are.
var yamlBlocks = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")

// byKustomize builds what docs/install.md writes for kustomize: the manifests'
// objects, changed as the page says and nowhere else, taken by an API server.
func byKustomize(t *testing.T, c *cluster.Cluster, root string) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(page), "\n## With kustomize\n")
	section, _, _ = strings.Cut(section, "\n## ")
	blocks := yamlBlocks.FindAllStringSubmatch(section, -1)
	if len(blocks) != 2 {
		t.Fatalf("%d blocks, want kustomization.yaml and config.yaml", len(blocks))
	}

	dir := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(root, "install/manifests"))); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"kustomization.yaml", "config.yaml"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(blocks[i][1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	built, err := exec.CommandContext(t.Context(), c.Kubernetes.Program("kubectl"), "kustomize", dir).Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, built)
	}

	changed := map[string]bool{"ConfigMap/poplin-config": true, "DaemonSet/poplind": true, "Deployment/poplin-ingress": true}
	got, want := objects(t, built), objects(t, plain(t))
	for name, o := range want {
		if reflect.DeepEqual(got[name], o) == changed[name] {
			t.Errorf("%s: has to be changed: %v; is %v", name, changed[name], got[name])
		}
	}
	if len(got) != len(want) {
		t.Errorf("kustomize has %d objects, the manifests %d", len(got), len(want))
	}
	var set appsv1.DaemonSet
	if err := kinds.DefaultUnstructuredConverter.FromUnstructured(got["DaemonSet/poplind"], &set); err != nil {
		t.Fatal(err)
	}
	pod := set.Spec.Template.Spec
	if add := pod.Containers[0].SecurityContext.Capabilities.Add; len(add) != 2 || add[1] != "NET_RAW" {
		t.Errorf("capabilities %v", add)
	}
	if !strings.Contains(strings.Join(pod.InitContainers[0].Command, " "), "--etc=/host/etc") {
		t.Errorf("the installer is %v", pod.InitContainers[0].Command)
	}
	for _, image := range []string{pod.Containers[0].Image, pod.InitContainers[0].Image} {
		if image != "registry.example/poplin:1.0" {
			t.Errorf("image %s", image)
		}
	}

	file := filepath.Join(t.TempDir(), "built.yaml")
	if err := os.WriteFile(file, built, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"apply", "--server-side"}, {"delete", "--wait=true"}} {
		if _, err := c.Kubectl(t.Context(), append(args, "-f", file)...); err != nil {
			t.Fatal(err)
		}
	}
}

// plain are the manifests that the chart is made of, one after the other.
func plain(t *testing.T) (all []byte) {
	t.Helper()
	for _, name := range []string{"poplin.yaml", "poplin-ingress.yaml"} {
		b, err := install.Manifests.ReadFile("manifests/" + name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(append(all, "---\n"...), b...)
	}
	return all
}
