package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/bench/pair"
	"poplin.dev/poplin/test/bench/plane"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/cni"
)

// The proxies' names, in tables too.
const (
	poplin    = "poplin"
	kubeProxy = "kube-proxy"
)

// proxy is a program that serves Services on a node of its own.
type proxy struct {
	name string
	n    byte // number of its node
	env  []string
	args []string
	// family, table and set are where its Services are in the kernel.
	family     byte
	table, set string
	// metrics is where it tells of itself; synced is the metric that has, in
	// seconds, how long it took from the objects to the kernel.
	metrics, synced string

	node *cni.Node
	pods *pair.Pair
}

func (l *lab) kubeProxy(program string) *proxy {
	return &proxy{
		name: kubeProxy, n: 1, family: unix.NFPROTO_IPV4, table: "kube-proxy", set: "service-ips",
		metrics: "http://127.0.0.1:10249/metrics", synced: `kubeproxy_sync_full_proxy_rules_duration_seconds_sum{ip_family="IPv4"}`,
		args: []string{
			program, "--proxy-mode=nftables", "--kubeconfig=" + l.PKI(pki.AdminKubeconfig), "--hostname-override=node-1",
			"--cluster-cidr=" + plane.Pods, "--conntrack-max-per-core=0", "--conntrack-min=0",
		},
	}
}

func (l *lab) poplin() *proxy {
	return &proxy{
		name: poplin, n: 2, family: unix.NFPROTO_INET, table: "poplin-services", set: "frontends4",
		metrics: "http://127.0.0.1:9410/metrics", synced: "poplin_sync_full_proxy_rules_duration_seconds_sum",
		env: []string{"NODE_NAME=node-2"},
		args: []string{
			filepath.Join(l.Dir, "poplind"), "-config", filepath.Join(l.Dir, "config.yaml"), "-kubeconfig", l.PKI(pki.AdminKubeconfig),
			"-state-dir", filepath.Join(l.Dir, "state"), "-socket", filepath.Join(l.Dir, "poplind.sock"),
		},
	}
}

// prepare makes the proxy's node.
func (l *lab) prepare(ctx context.Context, p *proxy) (err error) {
	if p.node, err = cni.NewNode(filepath.Join(l.Dir, fmt.Sprint("node-", p.n)), l.Dir); err != nil {
		return err
	}
	l.OnClose(p.node.Close)
	if err := l.Join(p.node, p.n); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(l.Dir, "state"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(l.Dir, "config.yaml"), []byte("apiVersion: config.poplin.dev/v1alpha1\nkind: Configuration\ncni: {confDir: "+
		filepath.Join(l.Dir, "state")+"}\n"), 0o600); err != nil {
		return err
	}
	return errors.Join(l.Node(ctx, fmt.Sprint("node-", p.n), p.n), l.populate(ctx, p))
}

// clear empties nf_tables of the proxy's node.
func (p *proxy) clear() error {
	var out []byte
	var err error
	err = errors.Join(p.node.Do(func() { out, err = exec.Command("nft", "flush", "ruleset").CombinedOutput() }), err)
	if err != nil {
		return fmt.Errorf("nft flush ruleset: %w: %s", err, out)
	}
	return nil
}
