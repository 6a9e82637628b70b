package cluster

import (
	"context"
	"strings"

	"poplin.dev/poplin/test/cluster/build"
	"poplin.dev/poplin/test/cluster/manifest"
	"poplin.dev/poplin/test/cluster/node"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/cluster/place"
	"poplin.dev/poplin/test/cluster/plan"
)

// startProxy starts kube-proxy, beside the kubelet and not in a pod: what a
// node's Services need is there before its pods.
func (c *Cluster) startProxy(i int) error {
	if c.Options.Proxy != "kube-proxy" {
		return nil
	}
	name := plan.NodeName(i + 1)
	config, err := node.ProxyConfig(node.ProxySettings{Node: name, Kubeconfig: c.pki(pki.ProxyKubeconfig), Pods: plan.Joined(c.plan.Pods), Address: c.plan.Anywhere()})
	if err != nil {
		return err
	}
	file, err := place.Configuration(c.Options.Name, name, "kube-proxy.yaml", config)
	if err != nil {
		return err
	}
	return c.daemon(name, name, "kube-proxy-"+name, c.Kubernetes.Program(build.Proxy), "--v=2", "--config="+file)
}

// applyAddons applies all manifests at once: a kubectl costs a third of a
// second.
func (c *Cluster) applyAddons(ctx context.Context, poplin *manifest.Poplin) error {
	var documents []string
	if c.Options.Proxy == "kube-proxy" {
		documents = append(documents, manifest.Proxy)
	}
	if c.Options.Proxy != "none" {
		dns, err := manifest.DNS(c.CoreDNS, c.plan.DNS())
		if err != nil {
			return err
		}
		documents = append(documents, dns)
	}
	if poplin != nil {
		documents = append(documents, string(poplin.Manifest))
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
