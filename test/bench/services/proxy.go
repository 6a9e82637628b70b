package services

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/bench/kernel"
	"poplin.dev/poplin/test/bench/pair"
	"poplin.dev/poplin/test/bench/plane"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/cni"
)

// The proxies' names, in tables too.
const (
	poplin   = "poplin"
	nftables = "kube-proxy nftables"
	iptables = "kube-proxy iptables"
)

// proxy is a program that serves Services on a node of its own.
type proxy struct {
	name string
	n    byte // number of its node
	env  []string
	args []string
	// most is how many endpoints it is asked to serve; 0 is any number.
	most int
	// there is whether the kernel holds so many of its Services.
	there func(k kernel.Conn, services uint32) (bool, error)
	// metrics is where it tells of itself; synced is the metric that has, in
	// seconds, how long it took from the objects to the kernel.
	metrics, synced string

	node *cni.Node
	pods *pair.Pair
}

func (l *lab) kubeProxy(program, mode string, n byte) *proxy {
	return &proxy{
		n:       n,
		metrics: "http://127.0.0.1:10249/metrics", synced: `kubeproxy_sync_full_proxy_rules_duration_seconds_sum{ip_family="IPv4"}`,
		args: []string{
			program, "--proxy-mode=" + mode, "--kubeconfig=" + l.PKI(pki.AdminKubeconfig), fmt.Sprint("--hostname-override=node-", n),
			"--cluster-cidr=" + plane.Pods, "--conntrack-max-per-core=0", "--conntrack-min=0",
		},
	}
}

func (l *lab) nftables(program string) *proxy {
	p := l.kubeProxy(program, "nftables", 1)
	p.name, p.there = nftables, elements(unix.NFPROTO_IPV4, "kube-proxy", "service-ips")
	return p
}

// iptables is Debian's, which writes into nf_tables: a rule for each Service
// stands in a chain, and a few others.
func (l *lab) iptables(program string) *proxy {
	p := l.kubeProxy(program, "iptables", 3)
	p.name, p.most = iptables, mostOfIPTables
	p.there = func(k kernel.Conn, services uint32) (bool, error) {
		n, err := k.Rules(unix.NFPROTO_IPV4, "nat", "KUBE-SERVICES")
		return n >= services, err
	}
	return p
}

// mostOfIPTables is how many endpoints kube-proxy serves by iptables, which has
// a chain for each, in a time for which one can wait.
const mostOfIPTables = 10000

// elements is whether a map has one for each Service.
func elements(family byte, table, set string) func(kernel.Conn, uint32) (bool, error) {
	return func(k kernel.Conn, services uint32) (bool, error) {
		n, err := k.Elements(family, table, set)
		return n == services, err
	}
}

func (l *lab) poplin() *proxy {
	return &proxy{
		name: poplin, n: 2, there: elements(unix.NFPROTO_INET, "poplin-services", "frontends4"),
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
