//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/live"
)

// ran is what a command printed, and how it ended.
func ran(t *testing.T, cmd *exec.Cmd) (string, int) {
	t.Helper()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if stderr.Len() > 0 {
		t.Log(stderr.String())
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// leftovers are namespaces of connectivity tests.
func leftovers(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	out, err := c.Kubectl(t.Context(), "get", "namespaces", "-l", "poplin.dev/connectivity-test", "-o", "name")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestConnectivityTest: a healthy cluster passes every check, one whose node keeps
// overlay packets out fails those to and from that node, which every node's status
// shows too, and nothing is left, also of a run that is interrupted.
func TestConnectivityTest(t *testing.T) {
	c := shared(t)
	type check struct{ Kind, From, To, Problem, Trace string }
	test := func() (list []check, code int) {
		out, code := ran(t, live.Poplinctl(t.Context(), t, c, "connectivity-test", "-o", "json"))
		if err := json.Unmarshal([]byte(out), &list); err != nil {
			t.Fatalf("%v, exit %d\n%s", err, code, out)
		}
		if left := leftovers(t, c); left != "" {
			t.Errorf("it leaves %s", left)
		}
		return list, code
	}
	list, code := test()
	kinds := map[string]int{}
	for _, x := range list {
		kinds[x.Kind]++
		if x.Problem != "" {
			t.Errorf("%+v", x)
		}
	}
	t.Logf("%d checks: %v", len(list), kinds)
	if code != 0 {
		t.Errorf("exit %d", code)
	}
	for _, kind := range []string{"pod IPv4", "pod IPv6, large", "pod IPv6, UDP", "Service IPv4", "DNS", "node port IPv6", "policy, allowed", "policy, denied"} {
		if kinds[kind] == 0 {
			t.Errorf("no check of %s", kind)
		}
	}

	const deaf = "worker-2"
	mend := func() {
		_, _ = c.Exec(context.WithoutCancel(t.Context()), deaf, "nft", "delete", "table", "inet", "deaf")
	}
	defer mend()
	if _, err := c.Exec(t.Context(), deaf, "nft", "add table inet deaf; add chain inet deaf in { type filter hook input priority -400; }; add rule inet deaf in udp dport 8472 drop"); err != nil {
		t.Fatal(err)
	}
	list, code = test()
	failed, traced := 0, 0
	for _, x := range list {
		if x.Trace != "" {
			t.Logf("%s: %s -> %s: %s", x.Kind, x.From, x.To, x.Trace)
			if strings.Contains(x.Trace, "inet deaf in") {
				traced++
			}
		}
		if x.Kind != "pod IPv4" {
			continue
		}
		cut := strings.HasSuffix(x.From, deaf) != strings.HasSuffix(x.To, deaf)
		if cut != (x.Problem != "") {
			t.Errorf("%s is deaf, and %+v", deaf, x)
		}
		if cut {
			failed++
		}
	}
	if code != 2 || failed == 0 || traced == 0 {
		t.Errorf("exit %d, %d pairs of pods cut, %d traced to the rule", code, failed, traced)
	}
	await.Success(t, time.Minute, func() error {
		out, code := ran(t, live.Poplinctl(t.Context(), t, c, "status", "-cluster"))
		if code != 2 || !strings.Contains(out, "worker-1: no answer through the pod network of "+deaf) || !strings.Contains(out, deaf+": data path: waits for an answer") {
			return errors.New(out)
		}
		return nil
	})
	mend()
	await.Success(t, time.Minute, func() error {
		if out, code := ran(t, live.Poplinctl(t.Context(), t, c, "status", "-cluster")); code != 0 {
			return errors.New(out)
		}
		return nil
	})

	cmd := live.Poplinctl(t.Context(), t, c, "connectivity-test")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await.Success(t, time.Minute, func() error {
		if leftovers(t, c) == "" {
			return errors.New("no namespace yet")
		}
		return nil
	})
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("interrupted, and all is well")
	}
	if left := leftovers(t, c); left != "" {
		t.Errorf("interrupted, it leaves %s", left)
	}
}

// TestEveryNodeIsAsked: the commands that ask daemons, on a healthy cluster.
func TestEveryNodeIsAsked(t *testing.T) {
	c := deployed(t)
	for _, tt := range []struct {
		args []string
		want []string
	}{
		{[]string{"status", "-cluster"}, []string{"worker-1", "worker-3", " ok ", "2/2"}},
		{[]string{"doctor", "-cluster"}, []string{"node worker-1", "node worker-3", "kernel: vxlan: made and removed", "clock: 0s from"}},
		{[]string{"flows"}, []string{"node worker-1", "pod kube-system/coredns"}},
	} {
		out, code := ran(t, live.Poplinctl(t.Context(), t, c, tt.args...))
		for _, want := range tt.want {
			if code != 0 || !strings.Contains(out, want) {
				t.Errorf("%v: exit %d, no %q in\n%s", tt.args, code, want, out)
			}
		}
	}
}

// openDNS isolates the name servers without keeping anybody from them.
const openDNS = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: rendered, namespace: kube-system}
spec:
  podSelector: {matchLabels: {k8s-app: kube-dns}}
  policyTypes: [Ingress, Egress]
  ingress:
  - ports: [{port: 53, protocol: UDP}, {port: 53}, {port: 8080}, {port: 8181}, {port: 9153, endPort: 9160}]
  - from: [{namespaceSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]
  egress: [{}]
`

// TestNodesHoldWhatIsDesired: every line of every node's program is what the
// compilers desire, with a policy too.
func TestNodesHoldWhatIsDesired(t *testing.T) {
	c := deployed(t)
	file := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(file, []byte(openDNS), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl(t.Context(), "apply", "-f", file); err != nil {
		t.Fatal(err)
	}
	defer c.Kubectl(context.WithoutCancel(t.Context()), "delete", "-f", file)
	await.Success(t, 30*time.Second, func() error {
		var all string
		for _, node := range c.Nodes() {
			out, code := ran(t, live.Poplinctl(t.Context(), t, c, "render", node))
			if code != 0 || strings.Count(out, "0 missing, 0 too many") != 3 {
				return fmt.Errorf("%s: exit %d\n%s", node, code, out)
			}
			all += out
		}
		if strings.Count(all, "# policy: 0 lines") == len(c.Nodes()) {
			return errors.New("no node holds a policy yet")
		}
		return nil
	})
}
