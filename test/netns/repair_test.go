package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/daemon/overlay"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/soak"
	"poplin.dev/poplin/test/space"
)

// TestRepair: what somebody breaks is whole again within a second.
func TestRepair(t *testing.T) {
	t.Parallel()
	l, a, b := newPair(t, dual)
	n := l.nodes[0]
	good := n.inventory(t)
	vx := func() netlink.Link { return n.Link(t, device) }
	mac := cluster.MACOf("uid-2")
	peer4, peer6 := podCIDR("4", 2), podCIDR("6", 2)
	neigh := func(ip netip.Addr) *netlink.Neigh {
		return &netlink.Neigh{LinkIndex: vx().Attrs().Index, IP: ip.AsSlice(), HardwareAddr: mac[:]}
	}
	for _, tt := range []struct {
		what string
		harm func() error
	}{
		{"route deleted", func() error {
			return n.NL.RouteDel(&netlink.Route{Dst: space.IPNet(peer4), LinkIndex: vx().Attrs().Index})
		}},
		{"IPv6 route deleted", func() error {
			return n.NL.RouteDel(&netlink.Route{Dst: space.IPNet(peer6), LinkIndex: vx().Attrs().Index})
		}},
		{"neighbour deleted", func() error { return n.NL.NeighDel(neigh(peer4.Addr())) }},
		{"neighbour replaced", func() error {
			x := neigh(peer6.Addr())
			x.State, x.HardwareAddr = netlink.NUD_PERMANENT, net.HardwareAddr{2, 0, 0, 0, 0, 9}
			return n.NL.NeighSet(x)
		}},
		{"forwarding entry deleted", func() error {
			x := neigh(netip.MustParseAddr("192.0.2.2"))
			x.Family, x.Flags = unix.AF_BRIDGE, netlink.NTF_SELF
			return n.NL.NeighDel(x)
		}},
		{"address deleted", func() error {
			return n.NL.AddrDel(vx(), &netlink.Addr{IPNet: space.IPNet(netip.PrefixFrom(podCIDR("4", 1).Addr(), 32))})
		}},
		{"MTU changed", func() error { return n.NL.LinkSetMTU(vx(), 1300) }},
		{"MAC changed", func() error { return n.NL.LinkSetHardwareAddr(vx(), net.HardwareAddr{2, 0, 0, 0, 0, 9}) }},
		{"device down", func() error { return n.NL.LinkSetDown(vx()) }},
		{"device deleted", func() error { return n.NL.LinkDel(vx()) }},
	} {
		if err := tt.harm(); err != nil {
			t.Fatalf("%s: %v", tt.what, err)
		}
		start := time.Now()
		await.Success(t, time.Second, func() error {
			// The index of a new device shows nowhere in the inventory.
			if now := n.inventory(t); now != good {
				return fmt.Errorf("%s:\n%swant\n%s", tt.what, now, good)
			}
			return nil
		})
		t.Logf("%s: whole again after %v", tt.what, time.Since(start).Round(time.Millisecond))
		meet(t, a, b)
	}
}

// TestPodsAreNoNews: what pods' devices do costs the module nothing.
func TestPodsAreNoNews(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 2)
	l.startAll(t)
	n := l.nodes[0]
	before := n.quiet()
	for range 10 {
		p := n.addPod(t)
		if err := p.NL.LinkDel(p.Link(t, "eth0")); err != nil {
			t.Fatal(err)
		}
	}
	if after := n.quiet(); after != before {
		t.Errorf("%d passes for pods that came and went", after-before)
	}
}

// TestForeignThingsStay: other programs' routes, neighbours and addresses are
// neither changed nor removed, also where they are on our device or have our
// protocol number.
func TestForeignThingsStay(t *testing.T) {
	t.Parallel()
	l := newLab(t, ipv4, 2)
	l.startAll(t)
	n := l.nodes[0]
	p := n.addPod(t) // its route has our protocol
	vx, eth := n.Link(t, device).Attrs().Index, n.Link(t, "eth0").Attrs().Index
	other := func(cidr string, index int) *netlink.Route {
		return &netlink.Route{Dst: space.IPNet(netip.MustParsePrefix(cidr)), LinkIndex: index, Scope: unix.RT_SCOPE_LINK}
	}
	foreign := []*netlink.Route{other("198.51.100.0/24", eth), other("203.0.113.0/24", vx)}
	for _, r := range foreign {
		if err := n.NL.RouteAdd(r); err != nil {
			t.Fatal(err)
		}
	}
	n.stop()
	ready(t, n.start(t))
	for _, r := range append(foreign, other(p.addrs[0].String()+"/32", 0)) {
		list, err := n.NL.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Dst: r.Dst}, netlink.RT_FILTER_DST)
		if err != nil || len(list) != 1 {
			t.Errorf("route %s is gone: %v %v", r.Dst, list, err)
		}
	}

	// A route that is in our way is named, not replaced, and costs no other peer.
	if err := n.NL.RouteAdd(other("10.244.3.0/24", eth)); err != nil {
		t.Fatal(err)
	}
	l.addNode(t)
	l.addNode(t)
	ready(t, l.nodes[2].start(t))
	ready(t, l.nodes[3].start(t))
	await.Success(t, 3*time.Second, func() error {
		if err := n.hasRoute(podCIDR("4", 4)); err != nil {
			return err
		}
		s := n.state()
		if s.InPlace || s.Err == nil || !contains(s.Err.Error(), "10.244.3.0/24: another program has a route") {
			return fmt.Errorf("state %+v", s)
		}
		return nil
	})
	list, _ := n.NL.RouteListFiltered(netlink.FAMILY_V4, other("10.244.3.0/24", 0), netlink.RT_FILTER_DST)
	if len(list) != 1 || list[0].LinkIndex != eth {
		t.Errorf("the foreign route became %v", list)
	}
}

// TestForeignDevice: a device of our name that is not ours is left alone, and
// one that has our VNI and port is named.
func TestForeignDevice(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		link netlink.Link
		want string
	}{
		{"our name", &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: device}}, "a device of kind bridge has its name"},
		{"our tunnel", &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "flannel.1"}, VxlanId: 1, Port: 8472}, "device flannel.1 uses VXLAN 1 on port 8472"},
	} {
		l := newLab(t, ipv4, 1)
		n := l.nodes[0]
		if err := n.NL.LinkAdd(tt.link); err != nil {
			t.Fatalf("add device: %v", err)
		}
		m := n.start(t)
		await.Success(t, 3*time.Second, func() error {
			if s := n.state(); s.Err == nil || !contains(s.Err.Error(), tt.want) {
				return fmt.Errorf("%s: state %+v", tt.name, s)
			}
			return nil
		})
		if err := n.NL.LinkDel(n.Link(t, tt.link.Attrs().Name)); err != nil {
			t.Fatal(err)
		}
		ready(t, m)
	}
}

// TestWrongTunnel: a device with another VNI, as a changed configuration
// leaves it, is made anew with all peers.
func TestWrongTunnel(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 2)
	for _, n := range l.nodes {
		n.conf.VNI = 7
	}
	l.startAll(t)
	a, b := l.nodes[0].addPod(t), l.nodes[1].addPod(t)
	reach(t, a, b)
	for _, n := range l.nodes {
		n.stop()
		n.conf.VNI = 1
		ready(t, n.start(t))
	}
	meet(t, a, b)
}

// TestRefusedNode: a node that claims what others have is not programmed,
// and the state says why.
func TestRefusedNode(t *testing.T) {
	t.Parallel()
	l := newLab(t, ipv4, 2)
	l.startAll(t)
	n := l.nodes[0]
	l.api.change(func() {
		thief := l.api.nodes["worker-2"]
		thief.Name, thief.Created = "thief", thief.Created.Add(time.Hour)
		thief.VTEP = cluster.VTEP{Addr: netip.MustParseAddr("192.0.2.66"), MAC: cluster.MACOf("thief")}
		l.api.nodes["thief"] = thief
	})
	await.Success(t, 2*time.Second, func() error {
		s := n.state()
		if len(s.Refused) != 1 || s.Refused[0].Node != "thief" || !contains(s.Refused[0].Reason, "overlaps 10.244.2.0/24 of node worker-2") {
			return fmt.Errorf("refused %v", s.Refused)
		}
		return nil
	})
	if inv := n.inventory(t); contains(inv, "192.0.2.66") {
		t.Errorf("the thief was programmed:\n%s", inv)
	}
}

// TestRemove: nothing of the overlay is left.
func TestRemove(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 2)
	l.startAll(t)
	n := l.nodes[0]
	n.stop()
	table := n.openTable(t, logger(t, n))
	remove := func() error {
		_, errRules := table.Remove()
		_, err := overlay.Remove(t.Context(), logger(t, n))
		return errors.Join(errRules, err)
	}
	for range 2 {
		if err := n.Do(remove); err != nil {
			t.Fatal(err)
		}
		if inv := n.inventory(t); inv != "" {
			t.Errorf("left:\n%s", inv)
		}
		if rules := n.ruleset(t); rules != "" {
			t.Errorf("left:\n%s", rules)
		}
	}
	table.Close()
	ready(t, n.start(t))
}

// TestThousandPeers: a node joins a large cluster, and restarts in it. In a
// soak it has the five thousand nodes that Kubernetes supports.
func TestThousandPeers(t *testing.T) {
	l := newLab(t, dual, 1)
	peers := 1000
	if soak.Times(2) == 2 {
		peers = 5000
	}
	l.api.change(func() {
		for i := range peers {
			name := fmt.Sprintf("peer-%d", i)
			hi, lo := byte(i>>8), byte(i)
			l.api.nodes[name] = cluster.Node{
				Name: name, MTU: 1450,
				PodCIDRs: []netip.Prefix{
					netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100 + hi, lo, 0}), 24),
					netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 6: hi, 7: lo}), 64),
				},
				VTEP: cluster.VTEP{Addr: netip.AddrFrom4([4]byte{198, 18, hi, lo}), MAC: cluster.MACOf(name)},
			}
		}
	})
	n := l.nodes[0]
	start := time.Now()
	ready(t, n.start(t))
	took := time.Since(start)
	t.Logf("joined %d nodes in %v", peers, took.Round(time.Millisecond))
	if took > 5*time.Second {
		t.Error("that is more than five seconds")
	}
	s := n.state()
	if s.Peers != peers {
		t.Errorf("%d peers", s.Peers)
	}
	n.stop()
	start = time.Now()
	ready(t, n.start(t))
	t.Logf("restarted in %v", time.Since(start).Round(time.Millisecond))
	if s := n.state(); !s.Result.Zero() || s.Peers != peers {
		t.Errorf("the restart changed %+v", s.Result)
	}
}
