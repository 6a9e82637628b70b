package chart

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"poplin.dev/poplin/install"
)

// objects are those of manifests by kind and name. Of a configuration only the
// meaning counts.
func objects(t *testing.T, manifests string) map[string]map[string]any {
	t.Helper()
	found := map[string]map[string]any{}
	for doc := range strings.SplitSeq("\n"+manifests, "\n---\n") {
		var o map[string]any
		if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
			t.Fatal(err)
		}
		if len(o) == 0 {
			continue
		}
		if data, is := o["data"].(map[string]any); is && data["config.yaml"] != nil {
			var config map[string]any
			if err := yaml.Unmarshal([]byte(data["config.yaml"].(string)), &config); err != nil {
				t.Fatal(err)
			}
			o["data"] = config
		}
		if spec, is := o["spec"].(map[string]any); is && o["kind"] == "DaemonSet" {
			delete(spec["template"].(map[string]any)["metadata"].(map[string]any)["annotations"].(map[string]any), "checksum/config")
		}
		found[o["kind"].(string)+"/"+o["metadata"].(map[string]any)["name"].(string)] = o
	}
	return found
}

// TestManifestIsTheManifests: with no values but the images' names it is what a
// release holds as files.
func TestManifestIsTheManifests(t *testing.T) {
	var plain string
	for _, name := range []string{"poplin.yaml", "poplin-ingress.yaml"} {
		b, err := install.Manifests.ReadFile("manifests/" + name)
		if err != nil {
			t.Fatal(err)
		}
		plain += "---\n" + string(b)
	}
	plain = strings.NewReplacer("poplin.dev/poplin:dev", "registry.example:5000/x/poplin:v1.2.3", "poplin.dev/poplin-ingress:dev", "registry.example:5000/x/poplin-ingress:v1.2.3").Replace(plain)
	text, err := Chart{Version: "v1.2.3", Registry: "registry.example:5000/x"}.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	got, want := objects(t, string(text)), objects(t, plain)
	if len(want) < 15 || len(got) != len(want) {
		t.Errorf("%d objects, want %d", len(got), len(want))
	}
	for name, o := range want {
		if !reflect.DeepEqual(got[name], o) {
			g, _ := json.MarshalIndent(got[name], "", " ")
			w, _ := json.MarshalIndent(o, "", " ")
			t.Errorf("%s is\n%s\nwant\n%s", name, g, w)
		}
	}
}

// TestManifestTakesValues: later values count more, presets among them.
func TestManifestTakesValues(t *testing.T) {
	for _, name := range Presets() {
		p, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (Chart{Version: "v1"}).Manifest(p); err != nil {
			t.Errorf("preset %s: %v", name, err)
		}
	}
	p, err := Preset("k3s")
	if err != nil {
		t.Fatal(err)
	}
	given := []Values{p}
	for _, s := range []string{"config.clusterCIDRs=[10.0.0.0/8]", "ingress.enabled=false", "options.metrics=true", "image.pullSecrets=[{name: s}]"} {
		v, err := Setting(s)
		if err != nil {
			t.Fatal(err)
		}
		given = append(given, v)
	}
	text, err := Chart{Version: "v1"}.Manifest(given...)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"    clusterCIDRs:\n    - 10.0.0.0/8\n", "hostPath: {path: /var/lib/rancher/k3s/data/cni,", `imagePullSecrets: [{"name":"s"}]`,
		"mountPath: /var/lib/rancher/k3s/agent/etc/cni/net.d}", "name: poplin-metrics-reader",
	} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("no %q", want)
		}
	}
	if bytes.Contains(text, []byte("poplin-ingress")) {
		t.Error("the Ingress controller is there, which was switched off")
	}
}

func TestManifestRefuses(t *testing.T) {
	for set, want := range map[string]string{
		"config.overlay.mtuu=1400": "config.overlay.mtuu",
		"image.pullPolicy=3":       "set value image.pullPolicy to 3: want a text, such as IfNotPresent",
		"config.overlay=3":         "want an object",
		"ingress.replicas=two":     "want a number",
		"ingress.service=":         "nothing is given",
		"config.overlay.vni=-7":    "check value config: ",
		"nothing":                  "want KEY.KEY=VALUE",
		"a={":                      "no YAML",
	} {
		v, err := Setting(set)
		if err == nil {
			_, err = Chart{Version: "v1"}.Manifest(v)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", set, err, want)
		}
	}
	if _, err := Preset("openshift"); err == nil || !strings.Contains(err.Error(), "k3s, kind, kubeadm") {
		t.Errorf("preset openshift: %v", err)
	}
}
