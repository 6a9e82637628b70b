package netns

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/apply/foreign"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/need"
)

func (n *node) iptables(t testing.TB, args ...string) string {
	t.Helper()
	var all strings.Builder
	for _, name := range []string{"iptables-nft", "ip6tables-nft"} {
		path := need.Program(t, name, "iptables")
		if err := n.Do(func() error {
			out, err := exec.Command(path, args...).CombinedOutput()
			all.Write(out)
			return err
		}); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, all.String())
		}
	}
	return all.String()
}

// TestForeignFirewall: another program's policy to drop what is forwarded
// does not cut pods off, unless the administrator wants it so.
func TestForeignFirewall(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 2)
	strict, open := l.nodes[0], l.nodes[1]
	open.conf.OpenFirewalls = true
	l.startAll(t)
	var pods [2][2]*pod
	for i, n := range l.nodes {
		pods[i] = [2]*pod{n.addPod(t), n.addPod(t)}
	}
	reach(t, pods[0][0], pods[1][0])

	// The policy comes while the module runs.
	open.iptables(t, "-P", "FORWARD", "DROP")
	harmed := time.Now()
	hasRules := func() error {
		if list := open.iptables(t, "-S", "FORWARD"); strings.Count(list, foreign.Comment) != 8 {
			return errors.New("rules:\n" + list)
		}
		return nil
	}
	await.Success(t, 3*time.Second, hasRules)
	t.Logf("open after %v", time.Since(harmed).Round(time.Millisecond))
	reach(t, pods[0][0], pods[1][0])
	reach(t, pods[1][0], pods[0][0])
	reach(t, pods[1][0], pods[1][1])

	// The other program starts over, and somebody's own rule counts.
	open.iptables(t, "-F", "FORWARD")
	open.iptables(t, "-A", "FORWARD", "-p", "udp", "--dport", fmt.Sprint(echoPort), "-j", "DROP")
	await.Success(t, 3*time.Second, hasRules)
	if _, err := ask(pods[0][0].Space, pods[0][0].addrs[0], pods[1][0].addrs[0], 0); err == nil {
		t.Error("a rule to drop was overruled")
	}
	open.iptables(t, "-F", "FORWARD")
	await.Success(t, 3*time.Second, hasRules)
	reach(t, pods[0][0], pods[1][0])

	// Where it is only to be reported, pods are cut off: the policy worked.
	strict.iptables(t, "-P", "FORWARD", "DROP")
	if _, err := ask(pods[0][0].Space, pods[0][0].addrs[0], pods[0][1].addrs[0], 0); err == nil {
		t.Error("packets pass a chain that drops them")
	}
	if list := strict.iptables(t, "-S"); strings.Contains(list, foreign.Comment) {
		t.Errorf("rules where none are wanted:\n%s", list)
	}
}
