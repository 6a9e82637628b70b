package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"poplin.dev/poplin/daemon/overlay"
	"poplin.dev/poplin/daemon/reach"
	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/apply/sysctl"
	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/pkg/metrics"
)

const (
	// slow is how long a pass may last before the node is not ready: longer than
	// a request to an API server that does not answer. The kubelet knows within
	// ten seconds. hung is when the daemon had better be started anew.
	slow = 6 * time.Second
	hung = 18 * time.Second
	// moments are the seconds in which a loop that hangs may still come back: a
	// process that was frozen for a while finds all its passes old.
	moments = 5
	// stalled is how long after its last pass the overlay counts as hanging:
	// passes come every resync, or more often.
	stalled = 5 * resync
	// asking is how often other nodes are asked for an answer.
	asking = 10 * time.Second
)

// hangs says which loop has been at one pass for longer than limit.
func (s *state) hangs(limit time.Duration) string {
	if name, busy := s.pulse.Longest(); busy > limit {
		return fmt.Sprintf("%s, which has been at one pass for %s", name, busy.Round(time.Second))
	}
	return ""
}

// watchdog ends the daemon when one of its loops hangs: the kubelet starts
// another, which finds the network as it is. It implements loop.Task.
type watchdog struct{ *state }

func (watchdog) String() string { return "watchdog" }

// Ready is closed: there is nothing to wait for.
func (watchdog) Ready() <-chan struct{} {
	ready := loop.NewReady()
	ready.Set()
	return ready.Done()
}

func (w watchdog) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for seen := 0; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			text := w.hangs(hung)
			if text == "" {
				seen = 0
			} else if seen++; seen > moments {
				return errors.New("no progress of " + text)
			}
		}
	}
}

// alive says that the daemon hangs. Waiting is not hanging: before the first
// pass there may be no cluster to speak of.
func (s *state) alive() error {
	if text := s.hangs(hung); text != "" {
		return errors.New("no progress of " + text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pass.IsZero() || time.Since(s.pass) < stalled {
		return nil
	}
	return fmt.Errorf("the overlay's last pass ended %s ago, and one is due every %s", time.Since(s.pass).Round(time.Second), resync)
}

// ways are those to the other nodes, for packets that ask whether they work.
func ways(o overlay.State) []reach.Way {
	list := []reach.Way{}
	for _, n := range o.Others {
		if own, its, ok := o.Ends(n); ok {
			list = append(list, reach.Way{Node: n.Name, From: own, To: its})
		}
	}
	return list
}

// reached is told of every round of such packets.
func (s *state) reached(r reach.State) {
	s.count.Silent.Set(float64(len(r.Silent)))
	s.count.DataPath.Set(number(r.Problem == ""))
	s.exportReady()
}

// repaired counts what a pass put right that was not the cluster's change.
func repaired(count *metrics.Metrics, task string, cause diff.Cause, n int) {
	if cause != "" {
		count.Repaired(task, string(cause), n)
	}
}

// conntrack reads how full the kernel's table of connections is.
func conntrack(root string) func() (entries, limit float64, known bool) {
	tree := sysctl.Tree{Root: root}
	return func() (float64, float64, bool) {
		entries, known := tree.Number("netfilter/nf_conntrack_count")
		limit, also := tree.Number("netfilter/nf_conntrack_max")
		return float64(entries), float64(limit), known && also
	}
}

// family is an address family as metrics call it.
func family(a netip.Addr) string {
	if a.Is4() {
		return "ipv4"
	}
	return "ipv6"
}
