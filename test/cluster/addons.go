package cluster

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"

	"poplin.dev/poplin/test/cluster/build"
	"poplin.dev/poplin/test/cluster/images"
	"poplin.dev/poplin/test/cluster/pki"
)

//go:embed coredns.yaml
var corednsManifest string

//go:embed kube-proxy.yaml
var proxyManifest string

// startProxy starts kube-proxy, beside the kubelet and not in a pod: what a
// node's Services need is there before its pods.
func (c *Cluster) startProxy(i int) error {
	if c.Options.Proxy != "kube-proxy" {
		return nil
	}
	name := nodeName(i + 1)
	bind := "0.0.0.0"
	if c.plan.ipv6 {
		bind = "::"
	}
	type object = map[string]any
	config, err := yaml.Marshal(object{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode": "nftables", "hostnameOverride": name, "bindAddress": bind, "clusterCIDR": joined(c.plan.pods),
		"clientConnection": object{"kubeconfig": c.pki(pki.ProxyKubeconfig)},
		// The size of the conntrack table is read-only but in the machine's own
		// network namespace.
		"conntrack": object{"maxPerCore": 0, "min": 0},
	})
	if err != nil {
		return fmt.Errorf("write configuration of kube-proxy: %w", err)
	}
	file, err := c.nodeFile(i, "kube-proxy.yaml", config)
	if err != nil {
		return err
	}
	return c.daemon(name, name, "kube-proxy-"+name, c.Kubernetes.Program(build.Proxy), "--v=2", "--config="+file)
}

// network is Poplin, ready to be applied.
type network struct {
	archive  string
	manifest []byte
}

// findNetwork reads Poplin's manifest and points its daemons to the API server;
// nil without a network.
func findNetwork(o Options, root string) (*network, error) {
	if o.Network == "none" {
		return nil, nil
	}
	n := &network{archive: o.Image}
	if n.archive == "" {
		n.archive = filepath.Join(root, "dist/poplin-image.tar")
	}
	if _, err := os.Stat(n.archive); err != nil {
		return nil, fmt.Errorf("find image of Poplin: %w; make it (make image), or choose --network none", err)
	}
	manifest := o.Manifest
	if manifest == "" {
		manifest = filepath.Join(root, "install/manifests/poplin.yaml")
	}
	b, err := os.ReadFile(manifest)
	if err != nil {
		return nil, fmt.Errorf("find manifest of Poplin: %w; give its place with --manifest, or choose --network none", err)
	}
	if n.manifest, err = withEndpoint(b, makePlan(o).server()); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", manifest, err)
	}
	held, err := images.Names(n.archive)
	if err != nil {
		return nil, err
	}
	for _, name := range held {
		if bytes.Contains(b, []byte(name)) {
			return n, nil
		}
	}
	return nil, fmt.Errorf("find image of Poplin: %s asks for none of %s, which is what %s holds; make it with the name of the manifest",
		manifest, strings.Join(held, ", "), n.archive)
}

func (n *network) archives() []string {
	if n == nil {
		return nil
	}
	return []string{n.archive}
}

// The place of Poplin's configuration in its manifest.
const (
	configMap = "poplin-config"
	configKey = "config.yaml"
)

// withEndpoint sets apiServer.endpoints in the configuration that a manifest
// holds: before there are Services, a daemon must be told where the API server
// is.
func withEndpoint(manifest []byte, server string) ([]byte, error) {
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
			text, err := editConfig(data[configKey], server)
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

func editConfig(text any, server string) (string, error) {
	s, ok := text.(string)
	if !ok {
		return "", fmt.Errorf("its ConfigMap %s has no key %s", configMap, configKey)
	}
	var config map[string]any
	if err := yaml.Unmarshal([]byte(s), &config); err != nil {
		return "", fmt.Errorf("key %s of its ConfigMap %s: %w", configKey, configMap, err)
	}
	api, _ := config["apiServer"].(map[string]any)
	if api == nil {
		api = map[string]any{}
	}
	api["endpoints"] = []string{server}
	config["apiServer"] = api
	b, err := yaml.Marshal(config)
	return string(b), err
}

// applyAddons applies all manifests at once: a kubectl costs a third of a
// second.
func (c *Cluster) applyAddons(ctx context.Context, n *network) error {
	var documents []string
	if c.Options.Proxy == "kube-proxy" {
		dns, err := c.dnsManifest()
		if err != nil {
			return err
		}
		documents = append(documents, proxyManifest, dns)
	}
	if n != nil {
		documents = append(documents, string(n.manifest))
	}
	if len(documents) == 0 {
		return nil
	}
	cmd, err := c.KubectlCommand(ctx, "apply", "--server-side", "--filename=-")
	if err != nil {
		return err
	}
	cmd.Stdin = strings.NewReader(strings.Join(documents, "\n---\n"))
	_, err = output(cmd, "kubectl apply")
	return err
}

func (c *Cluster) dnsManifest() (string, error) {
	t, err := template.New("coredns").Parse(corednsManifest)
	if err != nil {
		return "", fmt.Errorf("read manifest of CoreDNS: %w", err)
	}
	var b strings.Builder
	if err := t.Execute(&b, map[string]any{"Image": c.CoreDNS, "Addresses": c.plan.dns()}); err != nil {
		return "", fmt.Errorf("fill in manifest of CoreDNS: %w", err)
	}
	return b.String(), nil
}
