//go:build e2e

package fault

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/soak"
)

// counts are what is not the same twice: of packets, and of the epochs of policies,
// with what is known in one.
var counts = regexp.MustCompile(`packets \d+ bytes \d+|ct label (set )?\d+( \| \d+)*|meta priority set [0-9a-f]+:[0-9a-f]+|` +
	`\n\s*elements = \{ [^}]*expires[^}]*\}`)

// TestDaemonKilled: the daemon is killed over and over, and what runs on its
// node notices nothing.
func TestDaemonKilled(t *testing.T) {
	c := shared(t)
	all := pods(t, c)
	before := rules(t, c, victim)
	traffic := between(t, c, all[victim], all[peer])
	for range soak.Times(20) {
		killed(t, c, victim)
		traffic.after(200)
		restarted(t, c, victim)
		ready(t, c, victim)
		traffic.after(200)
	}
	traffic.lossless(t)
	if after := rules(t, c, victim); after != before {
		t.Errorf("rules were\n%s\nand are\n%s", before, after)
	}
}

// TestRulesetFlushed: while the daemon lives, `nft flush ruleset` does nothing
// to what is ours; while it is dead, it takes all, and the next daemon puts it
// back. What is forged does not arrive in the meantime, or not any more.
func TestRulesetFlushed(t *testing.T) {
	c := shared(t)
	all := pods(t, c)
	before := rules(t, c, victim)
	guards := guarded(t, c, all)
	guards.hold(t)

	t.Run("while the daemon lives", func(t *testing.T) {
		traffic := between(t, c, all[victim], all[peer])
		for range soak.Times(20) {
			on(t, c, victim, "nft", "flush", "ruleset")
			if now := rules(t, c, victim); now != before {
				t.Fatalf("rules were\n%s\nand are\n%s", before, now)
			}
			guards.hold(t)
			traffic.after(100)
		}
		traffic.lossless(t)
	})
	t.Run("while it is dead", func(t *testing.T) {
		traffic := between(t, c, all[victim], all[peer])
		for range soak.Times(20) {
			killed(t, c, victim)
			flushed(t, c, victim)
			open := time.Now()
			_, start := restarted(t, c, victim)
			await.Success(t, time.Second, func() error {
				if now := rules(t, c, victim); now != before {
					return fmt.Errorf("rules were\n%s\nand are\n%s", before, now)
				}
				return nil
			})
			t.Logf("open for %v, complete %v after the daemon's start", time.Since(open).Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
			ready(t, c, victim)
			guards.hold(t)
		}
		// One that meets the flush itself may see a part of the rules.
		traffic.loses(t, soak.Times(20))
	})
}

// flushed takes away the rules that no daemon owns.
func flushed(t testing.TB, c *cluster.Cluster, node string) {
	t.Helper()
	await.Success(t, time.Second, func() error {
		on(t, c, node, "nft", "flush", "ruleset")
		if now := rules(t, c, node); now != "" {
			return fmt.Errorf("the flush left %s", now)
		}
		return nil
	})
}

// fault is something that happens to a node, so often in a soak.
type fault struct {
	name  string
	times int
	do    func(t *testing.T, n int)
}

// daemonFaults are those that nobody on the victim may notice.
func daemonFaults(t *testing.T, c *cluster.Cluster) []fault {
	t.Helper()
	if err := c.LoadImage(t.Context(), upgrade(t), ""); err != nil {
		t.Fatal(err)
	}
	rolled := func(t *testing.T, change ...string) {
		t.Helper()
		run(t, c, append([]string{"-n", "poplin-system"}, change...)...)
		run(t, c, "-n", "poplin-system", "rollout", "status", "daemonset/poplind", "--timeout=120s")
		ready(t, c, victim)
	}
	return []fault{
		{"daemon restarted", 20, func(t *testing.T, _ int) {
			run(t, c, "-n", "poplin-system", "delete", "pod", "--field-selector=spec.nodeName="+victim, "--selector=app.kubernetes.io/name=poplind")
			restarted(t, c, victim)
			ready(t, c, victim)
		}},
		{"daemon killed", 20, func(t *testing.T, _ int) {
			killed(t, c, victim)
			restarted(t, c, victim)
			ready(t, c, victim)
		}},
		{"image upgraded and rolled back", 10, func(t *testing.T, _ int) {
			rolled(t, "set", "image", "daemonset/poplind", "*=poplin.dev/poplin:next")
			rolled(t, "rollout", "undo", "daemonset/poplind")
		}},
		{"ruleset flushed", 50, func(t *testing.T, _ int) { on(t, c, victim, "nft", "flush", "ruleset") }},
	}
}
