package netns

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/load"
	"poplin.dev/poplin/test/soak"
	"poplin.dev/poplin/test/space"
)

// TestCrashLoop: a module that ends at any moment of its life, also in the
// middle of a pass, loses no packet of pods.
func TestCrashLoop(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 3)
	l.startAll(t)
	n := l.nodes[0]
	a, b := n.addPod(t), l.nodes[1].addPod(t)
	reach(t, a, b)
	there, back := newStream(t, a, b, 0), newStream(t, b, a, 1)
	for i := range soak.Times(20) {
		n.stop()
		// Something to do at the start, every other time.
		l.api.change(func() {
			if _, ok := l.api.nodes["worker-9"]; ok {
				delete(l.api.nodes, "worker-9")
				return
			}
			l.api.nodes["worker-9"] = cluster.Node{Name: "worker-9", MTU: 1450,
				PodCIDRs: []netip.Prefix{podCIDR("4", 9), podCIDR("6", 9)},
				VTEP:     cluster.VTEP{Addr: underlayAddr("4", 9).Addr(), MAC: cluster.MACOf("uid-9")}}
		})
		m := n.start(t)
		if i%2 == 0 {
			there.After(rand.N(20) + 1)
			continue // ends before it is ready, perhaps
		}
		ready(t, m)
		there.After(20)
	}
	n.stop()
	ready(t, n.start(t))
	for _, s := range []*load.Load{there, back} {
		if lost := lostBy(t, s); lost != 0 {
			t.Errorf("%d packets lost", lost)
		}
	}
}

// TestRangeMovesWhileDown: while a daemon is down a node leaves, and its pod
// range goes to a new node. Nothing of the old one is left after the start.
func TestRangeMovesWhileDown(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 3)
	l.startAll(t)
	n, old := l.nodes[0], l.nodes[2]
	a := n.addPod(t)
	n.stop()
	old.stop()
	l.api.change(func() {
		delete(l.api.nodes, old.self.Name)
		delete(l.api.selves, old.self.Name)
	})
	heir := l.addNode(t)
	heir.self.PodCIDRs = old.self.PodCIDRs
	l.api.setSelf(heir.self)
	ready(t, heir.start(t))
	ready(t, n.start(t))
	if inv := n.inventory(t); contains(inv, "192.0.2.3", cluster.MACOf("uid-3").String()) || !contains(inv, "192.0.2.4") {
		t.Errorf("want the heir's entries only:\n%s", inv)
	}
	if rules := n.ruleset(t); contains(rules, "192.0.2.3") || !contains(rules, "192.0.2.4") {
		t.Errorf("want the heir as a peer only:\n%s", rules)
	}
	b := heir.addPod(t)
	meet(t, a, b)
}

// TestUnderlayShrinks: the underlay's MTU falls under load. Pods keep their
// own, and large packets pass within five seconds: pods learn by path MTU
// discovery.
func TestUnderlayShrinks(t *testing.T) {
	t.Parallel()
	l, a, b := newPair(t, dual)
	for _, p := range []*pod{a, b} {
		if err := p.NL.LinkSetMTU(p.Link(t, "eth0"), 1450); err != nil {
			t.Fatal(err)
		}
		host := p.node.Link(t, fmt.Sprintf("plw%d", len(p.node.pods)+1))
		if err := p.node.NL.LinkSetMTU(host, 1450); err != nil {
			t.Fatal(err)
		}
	}
	reach(t, a, b)
	for i := range a.addrs {
		if err := push(a.Space, a.addrs[i], b.addrs[i]); err != nil {
			t.Fatal(err)
		}
	}
	s := newStream(t, a, b, 0)
	for _, n := range l.nodes {
		if err := n.NL.LinkSetMTU(n.Link(t, "eth0"), 1400); err != nil {
			t.Fatal(err)
		}
	}
	start := time.Now()
	for _, n := range l.nodes {
		await.Success(t, 5*time.Second, func() error {
			if mtu := n.Link(t, device).Attrs().MTU; mtu != 1350 {
				return fmt.Errorf("%s: MTU %d", n.self.Name, mtu)
			}
			return nil
		})
	}
	for i := range a.addrs {
		for _, way := range [][2]*pod{{a, b}, {b, a}} {
			if err := push(way[0].Space, way[0].addrs[i], way[1].addrs[i]); err != nil {
				t.Error(err)
			}
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("large packets passed after %v", took)
	} else {
		t.Logf("large packets passed after %v", took.Round(time.Millisecond))
	}
	s.After(100)
	if lost := lostBy(t, s); lost != 0 {
		t.Errorf("%d small packets lost", lost)
	}
}

// TestNodeMovesUnderLoad: a node's address changes under load; the peers
// follow within five seconds, and connections survive.
func TestNodeMovesUnderLoad(t *testing.T) {
	t.Parallel()
	l, a, b := newPair(t, dual)
	reach(t, a, b)
	n := l.nodes[1]
	s := newStream(t, a, b, 0)
	s.After(100)
	if err := n.NL.AddrDel(n.Link(t, "eth0"), &netlink.Addr{IPNet: space.IPNet(underlayAddr("4", 2))}); err != nil {
		t.Fatal(err)
	}
	n.AddAddr(t, "eth0", netip.MustParsePrefix("192.0.2.77/24"))
	self := n.self
	self.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.77"), self.Addresses[1]}
	l.api.setSelf(self)
	start := time.Now()
	await.Success(t, 5*time.Second, func() error {
		_, err := ask(a.Space, a.addrs[0], b.addrs[0], 0)
		return err
	})
	t.Logf("reachable at its new address after %v", time.Since(start).Round(time.Millisecond))
	s.After(200)
	lost := lostBy(t, s)
	t.Logf("%d packets lost meanwhile", lost)
	if lost > 5000 {
		t.Error("that is more than five seconds of them")
	}
	meet(t, a, b)
}
