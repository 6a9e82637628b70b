package cluster

import (
	"bytes"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestOptions(t *testing.T) {
	o, err := Options{}.complete()
	if err != nil || o.Name != "poplin" || o.Nodes != 3 || o.Family != "dual" || o.Network != "poplin" || o.Proxy != "kube-proxy" {
		t.Errorf("defaults: %+v, %v", o, err)
	}
	for want, o := range map[string]Options{
		`check name "A"`:                    {Name: "A"},
		`check name "../x"`:                 {Name: "../x"},
		"check nodes -1":                    {Nodes: -1},
		"check nodes 1000":                  {Nodes: 1000},
		`check family "ipx"`:                {Family: "ipx"},
		`check network "x": want one of po`: {Network: "x"},
		"comes with Poplin's Services":      {Proxy: "poplin"},
		"check routed 4":                    {Routed: 4},
	} {
		if _, err := o.complete(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", o, err, want)
		}
	}
}

func TestPlan(t *testing.T) {
	o, _ := Options{Routed: 2}.complete()
	p := makePlan(o)
	for got, want := range map[string]string{
		p.server():                       "https://172.30.0.11:6443",
		joined(p.nodeAddresses(0)):       "172.30.0.11,fd00:30::11",
		joined(p.nodeAddresses(1)):       "172.30.1.12,fd00:30:0:1::12",
		joined(p.hosts[1].Gateways):      "172.30.1.1,fd00:30:0:1::1",
		joined(p.dns()):                  "10.96.0.10,fd00:10:96::a",
		joined(p.lan.Forbidden):          "10.244.0.0/16,fd00:10:244::/56",
		p.hosts[2].Routes[1].To.String(): "fd00:30:0:1::/64",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	o.Family, o.Routed = "ipv6", 0
	if p := makePlan(o); p.server() != "https://[fd00:30::11]:6443" || p.hosts[0].Routes != nil || p.families != 1 {
		t.Errorf("ipv6: %+v", p)
	}
}

func TestOursIsExact(t *testing.T) {
	for namespace, want := range map[string]bool{
		"a-worker-1": true, "a-worker-12": true, "a-underlay": true, "a-router": true,
		"a-b-worker-1": false, "a-worker-1-worker-1": false, "a-worker-": false, "a": false, "ab-router": false,
	} {
		if got := ours("a", namespace); got != want {
			t.Errorf("ours(a, %s) = %v", namespace, got)
		}
	}
}

func TestWithEndpoint(t *testing.T) {
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
	out, err := withEndpoint([]byte(manifest), "https://[fd00:30::11]:6443")
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
	}
	if err := yaml.Unmarshal(documents[1], &object); err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(object.Data["config.yaml"]), &config); err != nil {
		t.Fatal(err)
	}
	if len(config.APIServer.Endpoints) != 1 || config.APIServer.Endpoints[0] != "https://[fd00:30::11]:6443" || config.APIServer.Timeout != "5s" || config.APIVersion == "" {
		t.Errorf("%+v", config)
	}
	if _, err := withEndpoint([]byte("kind: Other\n"), "x"); err == nil {
		t.Error("a manifest without the ConfigMap is not refused")
	}
}
