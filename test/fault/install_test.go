//go:build e2e

package fault

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/cluster/manifest"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/snapshot"
)

// TestInstallUpgradeRollBackRemove: on nodes that have a life of their own,
// Poplin comes, is upgraded and rolled back under load, and goes; the nodes
// are what they were.
func TestInstallUpgradeRollBackRemove(t *testing.T) {
	t.Parallel() // it has a cluster of its own
	root, err := cluster.ProjectRoot()
	if err != nil {
		t.Fatal(err)
	}
	c := live.Temporary(t, cluster.Options{Name: "fault-install", Nodes: 2, Network: "none", Proxy: "none"})
	next := upgrade(t)
	for _, node := range c.Nodes() {
		inhabit(t, c, node)
	}
	before := map[string]snapshot.Snapshot{}
	for _, node := range c.Nodes() {
		before[node] = nodeNow(t, c, node)
	}

	poplin, err := manifest.Find(root, "", "", manifest.Settings{Server: c.Server(), Services: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, archive := range []string{poplin.Image, next} {
		if err := c.LoadImage(t.Context(), archive, ""); err != nil {
			t.Fatal(err)
		}
	}
	installed := file(t, "poplin.yaml", poplin.Manifest)
	run(t, c, "apply", "--server-side", "-f", installed)
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	rollOut := func(want string, change ...string) {
		t.Helper()
		run(t, c, append([]string{"-n", "poplin-system"}, change...)...)
		run(t, c, "-n", "poplin-system", "rollout", "status", "daemonset/poplind", "--timeout=120s")
		for _, node := range c.Nodes() {
			if got := on(t, c, node, "/opt/cni/bin/poplin", "--version"); strings.Contains(got, "v99-next") != (want == "next") {
				t.Errorf("%s has the CNI plugin %s, want the %s one", node, got, want)
			}
			ready(t, c, node)
		}
	}
	all := pods(t, c)
	traffic := between(t, c, all[first], all[victim])
	traffic.after(200)
	rollOut("next", "set", "image", "daemonset/poplind", "*=poplin.dev/poplin:next")
	traffic.after(200)
	rollOut("first", "rollout", "undo", "daemonset/poplind")
	traffic.after(200)
	traffic.lossless(t)

	with := snapshot.Diff(before[first], nodeNow(t, c, first))
	for _, kind := range []string{"+ link: ", "+ address: ", "+ route: ", "+ neighbour: ", "+ forwarding entry: ", "+ nftables: table inet poplin", "+ nftables: table ip filter", "+ sysctl: ", "+ file: "} {
		if !strings.Contains(with, kind) {
			t.Errorf("nothing of Poplin's is seen that begins with %q, so a remainder would not be either", kind)
		}
	}

	run(t, c, "delete", "-f", installed)
	cleanup := filepath.Join(root, "install/manifests/cleanup.yaml")
	run(t, c, "apply", "-f", cleanup)
	refused(t, c)
	// The pods' DELs need no daemon.
	run(t, c, "delete", "daemonset", "load")
	run(t, c, "-n", "poplin-cleanup", "rollout", "status", "daemonset/poplin-cleanup", "--timeout=120s")
	run(t, c, "delete", "-f", cleanup)
	for _, node := range c.Nodes() {
		if d := snapshot.Diff(before[node], nodeNow(t, c, node)); d != "" {
			t.Errorf("%s is not what it was:\n%s", node, d)
		}
	}
}

// refused waits until the uninstaller has said on every node that there are
// pods, and why that stops it.
func refused(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	const want = "1 pods have their network from Poplin: default/load-"
	await.Success(t, time.Minute, func() error {
		out, err := c.Kubectl(t.Context(), "-n", "poplin-cleanup", "logs", "--selector=app.kubernetes.io/name=poplin-cleanup", "--container=cleanup", "--tail=-1")
		if err == nil && strings.Count(string(out), want) < len(c.Nodes()) {
			err = fmt.Errorf("the uninstaller says %s, want %q from each node", out, want)
		}
		return err
	})
}

// upgrade is the archive of an image of another version, poplin.dev/poplin:next.
// The first test that wants it makes it, in the folder of the run.
func upgrade(t *testing.T) (archive string) {
	t.Helper()
	making.Lock()
	defer making.Unlock()
	archive = filepath.Join(scratch, "next.tar")
	if _, err := os.Stat(archive); err == nil {
		return archive
	}
	root, err := cluster.ProjectRoot()
	ok(t, err)
	bin := filepath.Join(scratch, "bin")
	live.Go(t, root, "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X poplin.dev/poplin/pkg/version.Version=v99-next", "-o", bin+"/", "./cmd/poplind", "./cmd/poplin", "./cmd/poplinctl")
	live.Go(t, root, "run", "-trimpath", "-buildvcs=false", "./install/image", "-o", archive, "-bin", bin, "-version", "v99-next", "-name", "poplin.dev/poplin:next")
	return archive
}

var making sync.Mutex // of what is in scratch

// inhabit gives a node what others may have there, of each kind that Poplin
// makes, and sysctls that Poplin changes.
func inhabit(t *testing.T, c *cluster.Cluster, node string) {
	t.Helper()
	for _, command := range []string{
		"sysctl -qw net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0 net.ipv4.conf.lo.forwarding=1 net.ipv4.conf.all.accept_redirects=0 net.ipv6.conf.eth0.accept_ra=1 net.ipv6.conf.default.accept_dad=0",
		"ip link add plwfirewall type veth peer name far && ip link set far up && ip addr add 203.0.113.1/24 dev plwfirewall && ip link set plwfirewall up",
		"ip link add vx-other type vxlan id 7 dstport 4790 && ip link set vx-other up",
		"ip route add 198.51.100.0/24 dev plwfirewall proto 158",
		"ip -6 route add 2001:db8:1::/64 dev plwfirewall proto 158",
		"ip neigh add 203.0.113.9 lladdr 02:00:00:00:00:09 dev plwfirewall nud permanent",
		"bridge fdb append 02:00:00:00:00:09 dev vx-other dst 203.0.113.9",
		"ip rule add from 203.0.113.0/24 lookup 77",
		"iptables -P FORWARD DROP && iptables -A FORWARD -i plwfirewall -j ACCEPT -m comment --comment 'not of poplin'",
		"nft 'add table inet poplin-other; add chain inet poplin-other c { type filter hook input priority 0; }; add rule inet poplin-other c udp dport 8472 counter accept'",
		"mkdir -p /var/lib/cni/networks/other && echo x > /var/lib/cni/networks/other/10.9.0.2 && echo '{}' > /etc/cni/net.d/99-other.conflist.disabled",
	} {
		on(t, c, node, "sh", "-ec", command)
	}
}

// runtimes are directories that a container runtime makes for its first pod.
var runtimes = regexp.MustCompile(`^file: /var/lib/cni/(results|cache) `)

// nodeNow is everything that Poplin could leave behind.
func nodeNow(t *testing.T, c *cluster.Cluster, node string) snapshot.Snapshot {
	t.Helper()
	s, err := snapshot.Take(func(command ...string) ([]byte, error) { return c.Exec(t.Context(), node, command...) },
		"/etc", "/opt", "/var/lib/cni", "/run/poplin", "/run -maxdepth 1", "/var/lib -maxdepth 1")
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(s, runtimes.MatchString)
}

func file(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
