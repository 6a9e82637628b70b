package netns

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
)

// TestRangeChanges: a running node gets another pod range. Nothing of the
// former stays, here or at its peers, and pods of the new one are reached.
func TestRangeChanges(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 2)
	l.startAll(t)
	a, n := l.nodes[0].addPod(t), l.nodes[1]
	n.self.PodCIDRs = []netip.Prefix{podCIDR("4", 9), podCIDR("6", 9)}
	l.api.setSelf(n.self)
	for _, at := range l.nodes {
		await.Success(t, 5*time.Second, func() error {
			inv := at.inventory(t)
			if !contains(inv, "10.244.9.") || !contains(inv, "fd00:10:244:9:") || contains(inv, "10.244.2.", "fd00:10:244:2:") {
				return fmt.Errorf("%s: want the new ranges only:\n%s", at.self.Name, inv)
			}
			return nil
		})
	}
	b := n.addPod(t)
	meet(t, a, b)
}

// TestRangeIsContested: a node whose range is an older node's, or is outside the
// cluster's, takes no pods and says why; the older node keeps its range at every
// node, and there are never two routes to one. When it is solved, all goes on.
func TestRangeIsContested(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 3)
	for _, n := range l.nodes {
		n.conf.ClusterCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")}
	}
	l.startAll(t)
	watcher, older, younger := l.nodes[0], l.nodes[1], l.nodes[2]
	a, b := watcher.addPod(t), older.addPod(t)
	good := younger.self
	for _, tt := range []struct {
		what   string
		ranges []netip.Prefix
		here   string // what the node says
		there  string // why others refuse it
	}{
		{"an older node's", older.self.PodCIDRs, "10.244.2.0/24 overlaps 10.244.2.0/24 of node worker-2, which had it first", "overlaps 10.244.2.0/24 of node worker-2"},
		{"a part of it", []netip.Prefix{netip.MustParsePrefix("10.244.2.128/25")}, "overlaps 10.244.2.0/24 of node worker-2", "overlaps"},
		{"outside the cluster's", []netip.Prefix{netip.MustParsePrefix("10.99.0.0/24")}, "10.99.0.0/24 is outside the cluster's ranges", "outside the cluster's ranges"},
	} {
		bad := good
		bad.PodCIDRs = tt.ranges
		l.api.setSelf(bad)
		await.Success(t, 5*time.Second, func() error {
			if s := younger.state(); s.InPlace || s.Err == nil || !contains(s.Err.Error(), tt.here) {
				return fmt.Errorf("%s: in place %v, %v, want %q", tt.what, s.InPlace, s.Err, tt.here)
			}
			return nil
		})
		await.Success(t, 5*time.Second, func() error {
			s := watcher.state()
			if len(s.Refused) != 1 || s.Refused[0].Node != younger.self.Name || !contains(s.Refused[0].Reason, tt.there) {
				return fmt.Errorf("%s: refused %v, want %q", tt.what, s.Refused, tt.there)
			}
			return nil
		})
		if dev := watcher.leads(t, podCIDR("4", 2)); dev != device { // fails where there are two routes
			t.Errorf("%s: the older node's range leads to %s", tt.what, dev)
		}
		meet(t, a, b)
		l.api.setSelf(good)
		await.Success(t, 10*time.Second, func() error {
			if s := younger.state(); !s.InPlace {
				return fmt.Errorf("solved, but %v", s.Err)
			}
			return watcher.hasRoute(podCIDR("4", 3))
		})
	}
}
