//go:build e2e

package fault

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/load"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/webapp"
)

// shared is the cluster of the tests that need one.
var shared func(testing.TB) *cluster.Cluster

// scratch is a folder of the run, for what more than one test wants.
var scratch string

func TestMain(m *testing.M) {
	var err error
	if scratch, err = os.MkdirTemp("", "poplin-fault-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	o := cluster.Options{Name: "fault", Nodes: 3, Family: "dual", Network: "poplin"}
	code := live.Main(m, o, func(get func(testing.TB) *cluster.Cluster) { shared = get })
	if err := os.RemoveAll(scratch); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// The nodes: the control plane's, the one that faults happen to, its peer.
const first, victim, peer = "worker-1", "worker-2", "worker-3"

func run(t testing.TB, c *cluster.Cluster, args ...string) string {
	t.Helper()
	out, err := c.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

func on(t testing.TB, c *cluster.Cluster, node string, command ...string) string {
	t.Helper()
	out, err := c.Exec(t.Context(), node, command...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// apply makes the objects of a manifest for the time of a test.
func apply(t testing.TB, c *cluster.Cluster, manifest string) {
	t.Helper()
	file := t.TempDir() + "/objects.yaml"
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, c, "apply", "-f", file)
	t.Cleanup(func() {
		_, err := c.Kubectl(context.WithoutCancel(t.Context()), "delete", "--ignore-not-found", "-f", file)
		if err != nil {
			t.Error(err)
		}
	})
}

// A pod on every node, for load from and to it.
const ends = `
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: load}
spec:
  selector: {matchLabels: {app: load}}
  template:
    metadata: {labels: {app: load}}
    spec:
      terminationGracePeriodSeconds: 0
      tolerations: [{operator: Exists}]
      containers:
        - {name: idle, image: "registry.k8s.io/e2e-test-images/agnhost:2.63.0", imagePullPolicy: IfNotPresent, args: [pause]}
`

// pods are those of ends, by node.
func pods(t testing.TB, c *cluster.Cluster) map[string]webapp.Pod {
	t.Helper()
	apply(t, c, ends)
	run(t, c, "rollout", "status", "daemonset/load", "--timeout=180s")
	list, err := webapp.Pods(t.Context(), c.Kubectl, "app=load")
	if err != nil {
		t.Fatal(err)
	}
	byNode := map[string]webapp.Pod{}
	for _, p := range list {
		byNode[p.Node] = p
	}
	return byNode
}

// traffic is load both ways between two pods, in every family.
type traffic []*load.Load

func between(t testing.TB, c *cluster.Cluster, a, b webapp.Pod) (all traffic) {
	t.Helper()
	for i := range a.IPs {
		for _, way := range [][2]webapp.Pod{{a, b}, {b, a}} {
			from, to := way[0], way[1]
			server := load.Listen(t, live.Pod(t, c, to.Node, to.IPs[i]), netip.AddrPortFrom(to.IPs[i], 0))
			all = append(all, load.Start(t, live.Pod(t, c, from.Node, from.IPs[i]), server.Addr, server))
		}
	}
	return all
}

// after waits for a number of packets more.
func (tr traffic) after(packets int) { tr[0].After(packets) }

func (tr traffic) lossless(t testing.TB) {
	t.Helper()
	tr.loses(t, 0)
}

// loses allows each load so many packets, and no connection.
func (tr traffic) loses(t testing.TB, most int) {
	t.Helper()
	for _, l := range tr {
		l.Stop().Loses(t, most)
	}
}

// killed ends a node's daemon with SIGKILL.
func killed(t testing.TB, c *cluster.Cluster, node string) {
	t.Helper()
	pid := live.Daemon(t, c, node)
	if pid == 0 {
		t.Fatalf("no daemon runs on %s", node)
	}
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await.Success(t, 10*time.Second, func() error {
		if live.Daemon(t, c, node) == pid {
			return fmt.Errorf("daemon %d still runs", pid)
		}
		return nil
	})
}

// restarted waits for the daemon that the kubelet starts again, and returns
// when that was.
func restarted(t testing.TB, c *cluster.Cluster, node string) (pid int, start time.Time) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		if pid := live.Daemon(t, c, node); pid != 0 {
			return pid, time.Now()
		}
	}
	t.Fatalf("%s: no daemon was started again", node)
	return 0, time.Time{}
}

// ready waits until a node's daemon says so.
func ready(t testing.TB, c *cluster.Cluster, node string) {
	t.Helper()
	// After a power cycle the daemon is one of a hundred pods that start.
	await.Success(t, 5*time.Minute, func() error {
		_, err := c.Exec(t.Context(), node, "curl", "-sf", "-m", "5", "127.0.0.1:9411/readyz")
		return err
	})
}

// rules are what nftables hold of ours on a node, but for counts and the labels
// of connections, which each change of policies counts on. Services get
// other numbers when they are written anew: of those it says that they are there.
func rules(t testing.TB, c *cluster.Cluster, node string) string {
	t.Helper()
	need.Program(t, "nft", "nftables")
	var ours []string
	for table := range strings.SplitSeq(on(t, c, node, "nft", "list", "ruleset"), "\ntable ") {
		table = strings.TrimPrefix(table, "table ")
		switch {
		case strings.HasPrefix(table, "inet poplin-services "):
			ours = append(ours, "inet poplin-services\n")
		case strings.HasPrefix(table, "inet poplin"):
			ours = append(ours, counts.ReplaceAllString(strings.TrimSpace(table), "")+"\n")
		}
	}
	slices.Sort(ours) // listed as they were made
	return strings.Join(ours, "")
}
