package cluster

import (
	"net/netip"
	"strings"
	"testing"
	"time"
)

func node() Node {
	return Node{
		Name:     "worker-1",
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24"), netip.MustParsePrefix("fd00:10:244::/64")},
		VTEP:     VTEP{Addr: netip.MustParseAddr("172.30.0.11"), MAC: MACOf("uid-1")},
		MTU:      1450,
	}
}

func TestNodeValidate(t *testing.T) {
	if err := node().Validate(); err != nil {
		t.Fatalf("a good node: %v", err)
	}
	for _, c := range []struct {
		name, want string
		change     func(*Node)
	}{
		{"no name", "name", func(n *Node) { n.Name = "" }},
		{"host bits", "podCIDRs", func(n *Node) { n.PodCIDRs[0] = netip.MustParsePrefix("10.244.0.1/24") }},
		{"two of a family", "podCIDRs", func(n *Node) { n.PodCIDRs[1] = netip.MustParsePrefix("10.245.0.0/24") }},
		{"mapped", "podCIDRs", func(n *Node) { n.PodCIDRs[0] = netip.MustParsePrefix("::ffff:10.244.0.0/120") }},
		{"everything", "podCIDRs", func(n *Node) { n.PodCIDRs[0] = netip.MustParsePrefix("0.0.0.0/0") }},
		{"no room", "podCIDRs", func(n *Node) { n.PodCIDRs[0] = netip.MustParsePrefix("10.244.0.0/31") }},
		{"no address", "vtep.address", func(n *Node) { n.VTEP.Addr = netip.Addr{} }},
		{"loopback", "vtep.address", func(n *Node) { n.VTEP.Addr = netip.MustParseAddr("127.0.0.1") }},
		{"multicast", "vtep.address", func(n *Node) { n.VTEP.Addr = netip.MustParseAddr("ff02::1") }},
		{"zone", "vtep.address", func(n *Node) { n.VTEP.Addr = netip.MustParseAddr("fe80::1%eth0") }},
		{"no MAC", "vtep.mac", func(n *Node) { n.VTEP.MAC = MAC{} }},
		{"group MAC", "vtep.mac", func(n *Node) { n.VTEP.MAC[0] |= 1 }},
		{"tiny MTU", "mtu", func(n *Node) { n.MTU = 500 }},
		{"huge MTU", "mtu", func(n *Node) { n.MTU = 70000 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := node()
			c.change(&n)
			if err := n.Validate(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, want an error about %s", err, c.want)
			}
		})
	}
}

func TestMACOfIsStableLocalAndUnicast(t *testing.T) {
	a, b := MACOf("uid-a"), MACOf("uid-b")
	if a == b || a != MACOf("uid-a") {
		t.Errorf("%s and %s: want two addresses, each stable", a, b)
	}
	for _, m := range []MAC{a, b} {
		if m[0]&1 != 0 || m[0]&2 == 0 {
			t.Errorf("%s is not locally administered unicast", m)
		}
		if back, err := ParseMAC(m.String()); err != nil || back != m {
			t.Errorf("ParseMAC(%s) = %s, %v", m, back, err)
		}
	}
	for _, bad := range []string{"", "00:11:22:33:44", "00:11:22:33:44:55:66:77"} {
		if _, err := ParseMAC(bad); err == nil {
			t.Errorf("ParseMAC(%q): want an error", bad)
		}
	}
}

func TestSortNodesPutsTheOldestFirst(t *testing.T) {
	old, young := node(), node()
	old.Name, old.Created = "z", time.Unix(1, 0)
	young.Name, young.Created = "a", time.Unix(2, 0)
	twin := old
	twin.Name = "y"
	nodes := []Node{young, old, twin}
	SortNodes(nodes)
	if got := nodes[0].Name + nodes[1].Name + nodes[2].Name; got != "yza" {
		t.Errorf("order %s, want yza", got)
	}
}
