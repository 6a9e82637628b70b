package manifest

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestConfigure(t *testing.T) {
	const manifest = `# a comment
apiVersion: v1
kind: Namespace
metadata: {name: poplin-system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: poplin-config, namespace: poplin-system}
data:
  config.yaml: |
    apiVersion: config.poplin.dev/v1alpha1
    # why
    apiServer:
      endpoints: []
      timeout: 5s
---
kind: Other
`
	out, err := Configure([]byte(manifest), Settings{Server: "https://[fd00:30::11]:6443", Services: true})
	if err != nil {
		t.Fatal(err)
	}
	documents := bytes.Split(out, []byte("\n---\n"))
	if len(documents) != 3 || !strings.Contains(string(documents[0]), "poplin-system") || string(documents[2]) != "kind: Other\n" {
		t.Fatalf("%s", out)
	}
	var object struct{ Data map[string]string }
	var config struct {
		APIVersion string
		APIServer  struct {
			Endpoints []string
			Timeout   string
		}
		Services struct{ Enabled bool }
	}
	if err := yaml.Unmarshal(documents[1], &object); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(object.Data["config.yaml"]), &config); err != nil {
		t.Fatal(err)
	}
	if len(config.APIServer.Endpoints) != 1 || config.APIServer.Endpoints[0] != "https://[fd00:30::11]:6443" || config.APIServer.Timeout != "5s" || !config.Services.Enabled || config.APIVersion == "" {
		t.Errorf("%+v", config)
	}
	if _, err := Configure([]byte("kind: Other\n"), Settings{}); err == nil {
		t.Error("a manifest without the ConfigMap is not refused")
	}
}

func TestDNS(t *testing.T) {
	for want, addresses := range map[string][]netip.Addr{
		"SingleStack":      {netip.MustParseAddr("fd00:10:96::a")},
		"RequireDualStack": {netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00:10:96::a")},
	} {
		text, err := DNS("registry.k8s.io/coredns/coredns:v1.14.0", addresses)
		if err != nil {
			t.Fatal(err)
		}
		documents := strings.Split(text, "\n---\n")
		var service struct {
			Spec struct {
				ClusterIPs     []netip.Addr
				IPFamilyPolicy string
			}
		}
		if err := yaml.Unmarshal([]byte(documents[len(documents)-1]), &service); err != nil {
			t.Fatal(err)
		}
		if service.Spec.IPFamilyPolicy != want || len(service.Spec.ClusterIPs) != len(addresses) || service.Spec.ClusterIPs[0] != addresses[0] {
			t.Errorf("%+v", service.Spec)
		}
	}
}
