//go:build e2e

package fault

import (
	"fmt"
	"regexp"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/soak"
)

var counts = regexp.MustCompile(`packets \d+ bytes \d+`)

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
			await.Success(t, time.Second, func() error {
				on(t, c, victim, "nft", "flush", "ruleset")
				if now := rules(t, c, victim); now != "" {
					return fmt.Errorf("the flush left %s", now)
				}
				return nil
			})
			flushed := time.Now()
			_, start := restarted(t, c, victim)
			await.Success(t, time.Second, func() error {
				if now := rules(t, c, victim); now != before {
					return fmt.Errorf("rules were\n%s\nand are\n%s", before, now)
				}
				return nil
			})
			t.Logf("open for %v, complete %v after the daemon's start", time.Since(flushed).Round(time.Millisecond), time.Since(start).Round(time.Millisecond))
			ready(t, c, victim)
			guards.hold(t)
		}
		// One that meets the flush itself may see a part of the rules.
		traffic.loses(t, soak.Times(20))
	})
}
