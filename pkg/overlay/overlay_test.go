package overlay

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/test/golden"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// self is worker-1, on an underlay with MTU 1500.
func self(addr string, cidrs ...string) Self {
	return Self{
		Name: "worker-1", PodCIDRs: prefixes(cidrs...), MAC: cluster.MACOf("uid-1"), VNI: 1, Port: 8472,
		Underlay: cluster.Underlay{Link: "eth0", Index: 2, Addr: netip.MustParseAddr(addr), MTU: 1500},
	}
}

// age orders nodes: a smaller number is older.
func node(name string, age int, addr string, cidrs ...string) cluster.Node {
	return cluster.Node{
		Name: name, PodCIDRs: prefixes(cidrs...), MTU: 1450, Created: time.Unix(int64(age), 0),
		VTEP: cluster.VTEP{Addr: netip.MustParseAddr(addr), MAC: cluster.MACOf(name)},
	}
}

func with(s Self, direct ...string) Self {
	s.Direct = prefixes(direct...)
	return s
}

func offers(n cluster.Node, direct ...string) cluster.Node {
	n.Direct = prefixes(direct...)
	return n
}

// noTunnel is a node of mode direct.
func noTunnel(s Self) Self {
	s.NoTunnel = true
	return s
}

func closed(n cluster.Node) cluster.Node {
	n.VTEP.MAC = cluster.MAC{}
	return n
}

func smaller(n cluster.Node, mtu int) cluster.Node {
	n.MTU = mtu
	return n
}

func TestCompile(t *testing.T) {
	for name, tt := range map[string]struct {
		self  Self
		peers []cluster.Node
	}{
		"ipv4": {
			self("192.0.2.1", "10.244.1.0/24"),
			[]cluster.Node{node("worker-2", 2, "192.0.2.2", "10.244.2.0/24"), node("worker-3", 3, "192.0.2.3", "10.244.3.0/24")},
		},
		"dual": {
			self("192.0.2.1", "10.244.1.0/24", "fd00:10:244:1::/64"),
			[]cluster.Node{node("worker-2", 2, "192.0.2.2", "10.244.2.0/24", "fd00:10:244:2::/64")},
		},
		"ipv6-underlay": {
			self("2001:db8::1", "fd00:10:244:1::/64"),
			[]cluster.Node{node("worker-2", 2, "2001:db8::2", "10.244.2.0/24", "fd00:10:244:2::/64")},
		},
		"direct": {
			with(self("192.0.2.1", "10.244.1.0/24", "fd00:10:244:1::/64"), "192.0.2.1/24", "2001:db8::1/64"),
			[]cluster.Node{
				offers(node("worker-2", 2, "192.0.2.2", "10.244.2.0/24", "fd00:10:244:2::/64"), "192.0.2.2/24", "2001:db8::2/64"),
				offers(node("worker-3", 3, "192.0.2.3", "10.244.3.0/24"), "192.0.2.3/25"),
				node("worker-4", 4, "192.0.2.4", "10.244.4.0/24"),
				smaller(node("worker-5", 5, "192.0.2.5", "10.244.5.0/24"), 1350),
			},
		},
		"no-tunnel": {
			noTunnel(with(self("192.0.2.1", "10.244.1.0/24", "fd00:10:244:1::/64"), "192.0.2.1/24", "2001:db8::1/64")),
			[]cluster.Node{
				offers(smaller(node("worker-2", 2, "192.0.2.2", "10.244.2.0/24", "fd00:10:244:2::/64"), 1500), "192.0.2.2/24", "2001:db8::2/64"),
				offers(node("worker-3", 3, "192.0.2.3", "10.244.3.0/24"), "192.0.2.3/24"),
			},
		},
		"alone": {self("192.0.2.1", "10.244.1.0/24"), nil},
	} {
		t.Run(name, func(t *testing.T) {
			me, err := tt.self.Resolve()
			if err != nil {
				t.Fatal(err)
			}
			golden.Equal(t, filepath.Join("testdata", name+".golden"), Compile(me, tt.peers).String()+Guards(me, tt.peers).String())
		})
	}
}

func TestResolve(t *testing.T) {
	for _, tt := range []struct {
		name string
		mtu  int // configured
		link int
		self Self
		want int
		err  string
	}{
		{"derived over IPv4", 0, 1500, self("192.0.2.1", "10.244.1.0/24"), 1450, ""},
		{"derived over IPv6", 0, 1500, self("2001:db8::1", "10.244.1.0/24"), 1430, ""},
		{"jumbo frames", 0, 9000, self("192.0.2.1", "10.244.1.0/24"), 8950, ""},
		{"configured", 1400, 1500, self("192.0.2.1", "10.244.1.0/24"), 1400, ""},
		{"too large", 1500, 1500, self("192.0.2.1", "10.244.1.0/24"), 0, "mtu: 1500 does not fit into packets of eth0 (MTU 1500): at most 1450"},
		{"too small for IPv6", 0, 1300, self("192.0.2.1", "fd00:1::/64"), 0, "IPv6 needs 1280, so eth0 needs an MTU of 1330"},
		{"without a tunnel", 0, 1500, noTunnel(with(self("192.0.2.1", "10.244.1.0/24"), "192.0.2.1/24")), 1500, ""},
		{"without a tunnel, alone", 0, 1500, noTunnel(self("192.0.2.1", "10.244.1.0/24")), 0, "mode direct: eth0 holds no InternalIP"},
		{"without a tunnel, one family alone", 0, 1500, noTunnel(with(self("192.0.2.1", "10.244.1.0/24", "fd00:1::/64"), "192.0.2.1/24")), 0, "family of its pod range fd00:1::/64"},
		{"too small", 0, 1200, self("192.0.2.1", "10.244.1.0/24"), 0, "mtu: 1150 is outside"},
		{"range twice", 0, 1500, self("192.0.2.1", "10.244.1.0/24", "10.244.2.0/24"), 0, "more than one range of a family"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.self.MTU, tt.self.Underlay.MTU = tt.mtu, tt.link
			got, err := tt.self.Resolve()
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("error %v, want %q", err, tt.err)
				}
			} else if err != nil || got.MTU != tt.want {
				t.Errorf("got %d, %v, want %d", got.MTU, err, tt.want)
			}
		})
	}
}

func TestPeers(t *testing.T) {
	me := self("192.0.2.1", "10.244.1.0/24", "fd00:10:244:1::/64")
	good := node("worker-2", 2, "192.0.2.2", "10.244.2.0/24")
	with := func(change func(*cluster.Node)) cluster.Node {
		n := node("bad", 9, "192.0.2.9", "10.244.9.0/24")
		change(&n)
		return n
	}
	for _, tt := range []struct {
		name   string
		node   cluster.Node
		reason string // "" accepts
	}{
		{"fine", with(func(*cluster.Node) {}), ""},
		{"own range", with(func(n *cluster.Node) { n.PodCIDRs = prefixes("10.244.1.0/24") }), "overlaps 10.244.1.0/24 of node worker-1"},
		{"part of own range, and older", with(func(n *cluster.Node) { n.PodCIDRs, n.Created = prefixes("10.244.1.128/25"), time.Unix(0, 0) }), "overlaps 10.244.1.0/24 of node worker-1"},
		{"around own range", with(func(n *cluster.Node) { n.PodCIDRs = prefixes("10.244.0.0/16") }), "overlaps"},
		{"own address", with(func(n *cluster.Node) { n.VTEP.Addr = me.Underlay.Addr }), "vtep.address: 192.0.2.1 belongs to node worker-1"},
		{"own MAC", with(func(n *cluster.Node) { n.VTEP.MAC = me.MAC }), "belongs to node worker-1"},
		{"other's range", with(func(n *cluster.Node) { n.PodCIDRs = prefixes("10.244.2.0/25") }), "overlaps 10.244.2.0/24 of node worker-2"},
		{"other's address", with(func(n *cluster.Node) { n.VTEP.Addr = good.VTEP.Addr }), "belongs to node worker-2"},
		{"other's MAC", with(func(n *cluster.Node) { n.VTEP.MAC = good.VTEP.MAC }), "belongs to node worker-2"},
		{"own address as direct", with(func(n *cluster.Node) { *n = offers(*n, "192.0.2.1/24") }), "direct: 192.0.2.1 belongs to node worker-1"},
		{"other's address as direct", with(func(n *cluster.Node) { *n = offers(*n, "192.0.2.2/24") }), "direct: 192.0.2.2 belongs to node worker-2"},
		{"outside the cluster", with(func(n *cluster.Node) { n.PodCIDRs = prefixes("10.1.0.0/24") }), "10.1.0.0/24 is outside the cluster's ranges"},
		{"wider than the cluster", with(func(n *cluster.Node) { n.PodCIDRs = prefixes("10.0.0.0/8") }), "outside the cluster's ranges"},
		{"one of two ranges bad", with(func(n *cluster.Node) { n.PodCIDRs = prefixes("10.244.9.0/24", "fd00:10:244:1::/64") }), "overlaps"},
		{"other underlay family", with(func(n *cluster.Node) { n.VTEP.Addr = netip.MustParseAddr("2001:db8::9") }), "not of the family"},
		{"nodes inside pods' range", with(func(n *cluster.Node) { n.VTEP.Addr = netip.MustParseAddr("10.244.9.7") }), "holds a node's own address"},
		{"no tunnel", with(func(n *cluster.Node) { *n = offers(closed(*n), "192.0.2.9/24") }), "vtep.mac: missing, the node has mode direct"},
		{"no MAC", with(func(n *cluster.Node) { n.VTEP.MAC = cluster.MAC{} }), "vtep.mac"},
		{"multicast MAC", with(func(n *cluster.Node) { n.VTEP.MAC[0] |= 1 }), "vtep.mac"},
		{"no range yet", with(func(n *cluster.Node) { n.PodCIDRs = nil }), "absent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			own := me.Node()
			// The bad node comes first in the list: age decides, not order.
			peers, refused := Peers(me, []cluster.Node{tt.node, own, good}, prefixes("10.244.0.0/16", "fd00:10:244::/48"))
			switch tt.reason {
			case "":
				if len(peers) != 2 || len(refused) != 0 {
					t.Errorf("peers %v, refused %v", peers, refused)
				}
			case "absent":
				if len(peers) != 1 || len(refused) != 0 {
					t.Errorf("peers %v, refused %v", peers, refused)
				}
			default:
				if len(peers) != 1 || !peers[0].Equal(good) {
					t.Errorf("peers %v, want the good one only", peers)
				}
				if len(refused) != 1 || refused[0].Node != "bad" || !strings.Contains(refused[0].Reason, tt.reason) {
					t.Errorf("refused %v, want %q", refused, tt.reason)
				}
			}
		})
	}
}

// TestPeersWithoutTunnel: a node of mode direct takes whom it has in its own
// network, for every family, and refuses others by name.
func TestPeersWithoutTunnel(t *testing.T) {
	me := noTunnel(with(self("192.0.2.1", "10.244.1.0/24", "fd00:10:244:1::/64"), "192.0.2.1/24", "2001:db8::1/64"))
	for _, tt := range []struct {
		name   string
		node   cluster.Node
		reason string
	}{
		{"mode direct too", offers(closed(node("b", 2, "192.0.2.2", "10.244.2.0/24", "fd00:10:244:2::/64")), "192.0.2.2/24", "2001:db8::2/64"), ""},
		{"a tunnel that is not needed", offers(node("b", 2, "192.0.2.2", "10.244.2.0/24"), "192.0.2.2/24"), ""},
		{"no direct routing", node("b", 2, "192.0.2.2", "10.244.2.0/24"), "direct: [] offers no way to 10.244.2.0/24"},
		{"another network", offers(node("b", 2, "198.51.100.2", "10.244.2.0/24"), "198.51.100.2/24"), "direct: [198.51.100.2/24] offers no way"},
		{"one family only", offers(node("b", 2, "192.0.2.2", "10.244.2.0/24", "fd00:10:244:2::/64"), "192.0.2.2/24"), "offers no way to fd00:10:244:2::/64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			peers, refused := Peers(me, []cluster.Node{tt.node, offers(closed(node("c", 3, "192.0.2.3", "10.244.3.0/24")), "192.0.2.3/24")}, nil)
			if tt.reason == "" && (len(peers) != 2 || len(refused) != 0) {
				t.Errorf("peers %v, refused %v", peers, refused)
			}
			if tt.reason != "" && (len(peers) != 1 || len(refused) != 1 || refused[0].Node != "b" || !strings.Contains(refused[0].Reason, tt.reason)) {
				t.Errorf("peers %v, refused %v, want %q", peers, refused, tt.reason)
			}
		})
	}
}

// TestPeersOldestWins: the decision does not depend on who decides, nor on
// the order of the list.
func TestPeersOldestWins(t *testing.T) {
	a := node("a", 5, "192.0.2.5", "10.244.5.0/24")
	b := node("b", 3, "192.0.2.6", "10.244.5.0/25")
	c := node("c", 4, "192.0.2.7", "10.244.5.128/25")
	for _, list := range [][]cluster.Node{{a, b, c}, {c, b, a}, {b, a, c}} {
		peers, refused := Peers(self("192.0.2.1", "10.244.1.0/24"), list, nil)
		if !reflect.DeepEqual(peers, []cluster.Node{b, c}) || len(refused) != 1 || refused[0].Node != "a" {
			t.Errorf("%v: peers %v, refused %v", list, peers, refused)
		}
	}
}

func TestContested(t *testing.T) {
	me := self("192.0.2.1", "10.244.1.0/24", "fd00:10:244:1::/64")
	own := me.Node()
	own.Created = time.Unix(5, 0)
	for _, tt := range []struct {
		name  string
		nodes []cluster.Node
		want  string
	}{
		{"alone", nil, ""},
		{"apart", []cluster.Node{own, node("a", 1, "192.0.2.5", "10.244.5.0/24")}, ""},
		{"an older node's", []cluster.Node{own, node("a", 1, "192.0.2.5", "10.244.0.0/16")}, "10.244.1.0/24 overlaps 10.244.0.0/16 of node a"},
		{"an older node's, one of two", []cluster.Node{own, node("a", 1, "192.0.2.5", "fd00:10:244:1::/80")}, "overlaps fd00:10:244:1::/80"},
		{"a younger node's", []cluster.Node{node("a", 9, "192.0.2.5", "10.244.1.0/24"), own}, ""},
		{"not published yet", []cluster.Node{node("a", 9, "192.0.2.5", "10.244.1.0/24")}, "of node a"},
	} {
		err := Contested(me, tt.nodes, prefixes("10.244.0.0/16", "fd00:10:244::/48"))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
	if err := Contested(me, nil, prefixes("10.244.0.0/16")); err == nil || !strings.Contains(err.Error(), "fd00:10:244:1::/64 is outside the cluster's ranges") {
		t.Errorf("outside: %v", err)
	}
}

// many makes n peers of a cluster with two families.
func many(n int) []cluster.Node {
	nodes := make([]cluster.Node, n)
	for i := range nodes {
		hi, lo := byte(i>>8), byte(i)
		nodes[i] = cluster.Node{
			Name: fmt.Sprintf("peer-%d", i), MTU: 1450, Created: time.Unix(int64(i*7919%n), 0),
			PodCIDRs: []netip.Prefix{
				netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100 + hi, lo, 0}), 24),
				netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 6: hi, 7: lo}), 64),
			},
			VTEP: cluster.VTEP{Addr: netip.AddrFrom4([4]byte{198, 18, hi, lo}), MAC: cluster.MACOf(fmt.Sprint(i))},
		}
	}
	return nodes
}

func BenchmarkCompile(b *testing.B) {
	me := self("192.0.2.1", "10.244.1.0/24", "fd00:10:244:1::/64")
	for _, n := range []int{1000, 5000} {
		nodes := many(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				peers, refused := Peers(me, nodes, nil)
				if len(refused) > 0 {
					b.Fatal(refused)
				}
				Compile(me, peers)
			}
		})
	}
}
