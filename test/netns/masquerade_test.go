package netns

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/test/space"
)

// outside adds a host that belongs to no cluster, with an echo server. It
// could answer pods' own addresses: it knows where they are.
func outside(t testing.TB, l *lab) (*space.Space, []netip.Addr) {
	t.Helper()
	s := space.New(t)
	l.plug(t, s, "outside")
	var addrs []netip.Addr
	for _, f := range l.plan.underlay {
		a := underlayAddr(f, 99)
		s.AddAddr(t, "eth0", a)
		addrs = append(addrs, a.Addr())
		echo(t, s, a.Addr())
	}
	for _, n := range l.nodes {
		for i, c := range n.self.PodCIDRs {
			if err := s.NL.RouteAdd(&netlink.Route{Dst: space.IPNet(c), Gw: n.self.Addresses[i].AsSlice()}); err != nil {
				t.Fatalf("add route: %v", err)
			}
		}
	}
	return s, addrs
}

// TestMasquerade: outside the cluster the node's address is seen, with a
// source port above the VXLAN port whatever the pod's was; an excluded
// destination sees the pod's own.
func TestMasquerade(t *testing.T) {
	for _, tt := range []struct {
		name     string
		masq     bool
		exclude  bool
		seesNode bool
	}{
		{"on", true, false, true},
		{"excluded destination", true, true, false},
		{"off", false, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, dual, 2)
			_, servers := outside(t, l)
			for _, n := range l.nodes {
				n.conf.Masquerade = tt.masq
				if tt.exclude {
					for _, s := range servers {
						n.conf.ExcludeCIDRs = append(n.conf.ExcludeCIDRs, netip.PrefixFrom(s, s.BitLen()))
					}
				}
			}
			l.startAll(t)
			p := l.nodes[0].addPod(t)
			for i, server := range servers {
				want := p.addrs[i]
				if tt.seesNode {
					want = p.node.self.Addresses[i]
				}
				for _, port := range []uint16{1234, 8472, 40000} {
					seen, err := ask(p.Space, p.addrs[i], server, port)
					if err != nil {
						t.Error(err)
						continue
					}
					if seen.Addr() != want {
						t.Errorf("%s saw %s, want %s", server, seen, want)
					}
					if tt.seesNode && seen.Port() <= 8472 {
						t.Errorf("%s saw source port %d for port %d, want one above 8472", server, seen.Port(), port)
					}
				}
				if err := push(p.Space, p.addrs[i], server); err != nil {
					t.Error(err)
				}
			}
			// Within the cluster nothing is translated, both ways.
			q := l.nodes[1].addPod(t)
			meet(t, p, q)
		})
	}
}

// TestPodToNode: a pod reaches its own node without translation and other
// nodes under its node's address, and a node reaches every pod.
func TestPodToNode(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 2)
	l.startAll(t)
	p := l.nodes[0].addPod(t)
	for i := range p.addrs {
		for j, n := range l.nodes {
			echo(t, n.Space, n.self.Addresses[i])
			want := p.addrs[i]
			if j != 0 {
				want = l.nodes[0].self.Addresses[i]
			}
			if seen, err := ask(p.Space, p.addrs[i], n.self.Addresses[i], 0); err != nil || seen.Addr() != want {
				t.Errorf("node %d saw %s (%v), want %s", j, seen, err, want)
			}
			from := n.self.Addresses[i]
			if j != 0 {
				from = vtepOf(n.self.PodCIDRs[i])
			}
			if _, err := ask(n.Space, from, p.addrs[i], 0); err != nil {
				t.Errorf("node %d: %v", j, err)
			}
		}
	}
}

func vtepOf(p netip.Prefix) netip.Addr { return p.Addr() }

// TestUnassignedAddress: a packet to an address that no pod has is answered
// with "unreachable" by the node that has the range, and does not wander.
func TestUnassignedAddress(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 2)
	l.startAll(t)
	p := l.nodes[0].addPod(t)
	for i, c := range l.nodes[1].self.PodCIDRs {
		b := c.Addr().AsSlice()
		b[len(b)-1] = 200
		nobody, _ := netip.AddrFromSlice(b)
		err := push(p.Space, p.addrs[i], nobody)
		if err == nil {
			t.Errorf("%s answered", nobody)
		} else if got := fmt.Sprint(err); !contains(got, "no route to host", "network is unreachable", "permission denied") {
			t.Errorf("%s: %v, want an answer that says unreachable", nobody, err)
		}
	}
}
