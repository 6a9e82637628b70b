// Package manifest has the manifests that a new cluster begins with. In: names of
// images and addresses. Out: YAML for kubectl. It refuses a manifest of Poplin
// without the ConfigMap that its configuration is in.
package manifest

import (
	"bytes"
	_ "embed"
	"fmt"
	"net/netip"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"
)

// Proxy lets kube-proxy, which runs beside the kubelets, read what it needs.
//
//go:embed kube-proxy.yaml
var Proxy string

//go:embed coredns.yaml
var coredns string

// DNS is CoreDNS under the cluster's DNS addresses.
func DNS(image string, addresses []netip.Addr) (string, error) {
	t, err := template.New("coredns").Parse(coredns)
	if err != nil {
		return "", fmt.Errorf("read manifest of CoreDNS: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, map[string]any{"Image": image, "Addresses": addresses}); err != nil {
		return "", fmt.Errorf("fill in manifest of CoreDNS: %w", err)
	}
	return b.String(), nil
}

// The place of Poplin's configuration in its manifest.
const (
	configMap = "poplin-config"
	configKey = "config.yaml"
)

// Settings are what a cluster of ours has Poplin's configuration say.
type Settings struct {
	// Server is where the API server is: before there are Services, a daemon
	// must be told.
	Server string
	// Services has Poplin serve Services.
	Services bool
}

// Documentation's own ranges (RFC 5737, RFC 3849): tests take external
// addresses from them.
var externalIPs = []string{"203.0.113.0/24", "2001:db8::/32"}

// Configure edits the configuration that a manifest holds.
func Configure(manifest []byte, settings Settings) ([]byte, error) {
	var out [][]byte
	found := false
	for _, document := range bytes.Split(append([]byte("\n"), manifest...), []byte("\n---")) {
		var object map[string]any
		if err := yaml.Unmarshal(document, &object); err != nil {
			return nil, err
		}
		metadata, _ := object["metadata"].(map[string]any)
		data, _ := object["data"].(map[string]any)
		if object["kind"] == "ConfigMap" && metadata["name"] == configMap && data != nil {
			text, err := settings.edit(data[configKey])
			if err != nil {
				return nil, err
			}
			data[configKey] = text
			if document, err = yaml.Marshal(object); err != nil {
				return nil, err
			}
			document = append([]byte("\n"), document...)
			found = true
		}
		out = append(out, document)
	}
	if !found {
		return nil, fmt.Errorf("it has no ConfigMap %s", configMap)
	}
	return bytes.Join(out, []byte("\n---")), nil
}

func (s Settings) edit(text any) (string, error) {
	t, ok := text.(string)
	if !ok {
		return "", fmt.Errorf("its ConfigMap %s has no key %s", configMap, configKey)
	}
	var config map[string]any
	if err := yaml.Unmarshal([]byte(t), &config); err != nil {
		return "", fmt.Errorf("key %s of its ConfigMap %s: %w", configKey, configMap, err)
	}
	for _, set := range []struct {
		part, key string
		value     any
	}{
		{"apiServer", "endpoints", []string{s.Server}},
		{"services", "enabled", s.Services},
		{"services", "externalIPCIDRs", externalIPs},
	} {
		part, _ := config[set.part].(map[string]any)
		if part == nil {
			part = map[string]any{}
			config[set.part] = part
		}
		part[set.key] = set.value
	}
	b, err := yaml.Marshal(config)
	return string(b), err
}
