package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/load"
	"poplin.dev/poplin/test/soak"
	"poplin.dev/poplin/test/space"
)

// leads is the device by which a node sends to a peer's range.
func (n *node) leads(t testing.TB, dst netip.Prefix) string {
	t.Helper()
	routes, err := n.NL.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Dst: space.IPNet(dst)}, netlink.RT_FILTER_DST)
	if err != nil || len(routes) != 1 {
		t.Fatalf("routes to %s: %v, %v", dst, routes, err)
	}
	link, err := n.NL.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Name
}

func (n *node) leadsBy(t testing.TB, dst netip.Prefix, device string) {
	t.Helper()
	await.Success(t, 3*time.Second, func() error {
		if got := n.leads(t, dst); got != device {
			return fmt.Errorf("%s sends to %s by %s, want %s", n.self.Name, dst, got, device)
		}
		return nil
	})
}

// TestDirectRouting: two nodes of one network that want it need no tunnel
// between them; one that does not want it, and one in another network, are
// reached through it.
func TestDirectRouting(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 4)
	for _, n := range []int{0, 1, 3} {
		l.nodes[n].conf.DirectRouting = true
	}
	// The last node's addresses are alone in their networks.
	alone := l.nodes[3]
	for _, f := range l.plan.underlay {
		a := underlayAddr(f, 4)
		if err := alone.NL.AddrDel(alone.Link(t, "eth0"), &netlink.Addr{IPNet: space.IPNet(a)}); err != nil {
			t.Fatal(err)
		}
		alone.AddAddr(t, "eth0", netip.PrefixFrom(a.Addr(), a.Addr().BitLen()))
		for i := 1; i <= 3; i++ {
			to := underlayAddr(f, i).Addr()
			if err := alone.NL.RouteAdd(&netlink.Route{Dst: space.IPNet(netip.PrefixFrom(to, to.BitLen())), LinkIndex: alone.Link(t, "eth0").Attrs().Index}); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.startAll(t)
	var pods []*pod
	for _, n := range l.nodes {
		pods = append(pods, n.addPod(t))
	}
	for _, family := range []string{"4", "6"} {
		l.nodes[0].leadsBy(t, podCIDR(family, 2), "eth0")
		l.nodes[1].leadsBy(t, podCIDR(family, 1), "eth0")
		l.nodes[0].leadsBy(t, podCIDR(family, 3), device)
		l.nodes[0].leadsBy(t, podCIDR(family, 4), device)
		l.nodes[3].leadsBy(t, podCIDR(family, 1), device)
	}
	for _, a := range pods {
		for _, b := range pods {
			if a != b {
				reach(t, a, b)
			}
		}
	}
	for i := range pods[0].addrs {
		if err := push(pods[0].Space, pods[0].addrs[i], pods[1].addrs[i]); err != nil {
			t.Error(err)
		}
	}

	// What others do to a direct route is repaired too.
	n := l.nodes[0]
	if err := n.NL.RouteDel(&netlink.Route{Dst: space.IPNet(podCIDR("4", 2)), LinkIndex: n.Link(t, "eth0").Attrs().Index}); err != nil {
		t.Fatal(err)
	}
	await.Success(t, time.Second, func() error { return n.hasRoute(podCIDR("4", 2)) })
	n.leadsBy(t, podCIDR("4", 2), "eth0")
}

// TestModeDirect: without a tunnel, nodes of one network reach each other's
// pods, one that has a tunnel too if it routes directly where it can; the
// others are refused by name, at both ends.
func TestModeDirect(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 4)
	l.nodes[0].conf.NoTunnel, l.nodes[1].conf.NoTunnel = true, true
	l.nodes[2].conf.DirectRouting = true // the last one knows nothing but its tunnel
	for _, n := range l.nodes {
		n.start(t)
	}
	refuses := func(n, whom *node, reason string) {
		t.Helper()
		await.Success(t, 5*time.Second, func() error {
			s := n.state()
			if !s.InPlace || len(s.Refused) != 1 || s.Refused[0].Node != whom.self.Name || !contains(s.Refused[0].Reason, reason) {
				return fmt.Errorf("%s: in place %v, %v, refused %v, want %s: %s", n.self.Name, s.InPlace, s.Err, s.Refused, whom.self.Name, reason)
			}
			return nil
		})
	}
	tunnel := l.nodes[3]
	refuses(l.nodes[0], tunnel, "direct: [] offers no way to 10.244.4.0/24")
	refuses(l.nodes[1], tunnel, "which mode direct needs")
	await.Success(t, 5*time.Second, func() error {
		if s := tunnel.state(); len(s.Refused) != 2 || !contains(s.Refused[0].Reason, "vtep.mac: missing, the node has mode direct") || s.Peers != 1 {
			return fmt.Errorf("the node with a tunnel only refuses %v", s.Refused)
		}
		return nil
	})
	var pods []*pod
	for _, n := range l.nodes[:3] {
		pods = append(pods, n.addPod(t))
		if mtu := n.state().MTU; n.conf.NoTunnel && mtu != 1500 {
			t.Errorf("%s: MTU %d, want the underlay's", n.self.Name, mtu)
		}
	}
	for i, n := range l.nodes[:3] {
		_, err := n.NL.LinkByName(device)
		if gone := errors.As(err, &netlink.LinkNotFoundError{}); gone != n.conf.NoTunnel {
			t.Errorf("%s: find overlay device: %v", n.self.Name, err)
		}
		for j, other := range l.nodes[:3] {
			if i == j {
				continue
			}
			for k, c := range other.self.PodCIDRs {
				n.leadsBy(t, c, "eth0")
				if err := push(pods[i].Space, pods[i].addrs[k], pods[j].addrs[k]); err != nil {
					t.Error(err)
				}
			}
			reach(t, pods[i], pods[j])
		}
	}

	// What others do to it is repaired here too.
	n := l.nodes[0]
	if err := n.NL.RouteDel(&netlink.Route{Dst: space.IPNet(podCIDR("6", 2)), LinkIndex: n.Link(t, "eth0").Attrs().Index}); err != nil {
		t.Fatal(err)
	}
	await.Success(t, time.Second, func() error { return n.hasRoute(podCIDR("6", 2)) })
}

// TestModeDirectAlone: a node that is alone in its network says so.
func TestModeDirectAlone(t *testing.T) {
	t.Parallel()
	l := newLab(t, ipv4, 1)
	n := l.nodes[0]
	n.conf.NoTunnel = true
	a := underlayAddr("4", 1)
	if err := n.NL.AddrDel(n.Link(t, "eth0"), &netlink.Addr{IPNet: space.IPNet(a)}); err != nil {
		t.Fatal(err)
	}
	n.AddAddr(t, "eth0", netip.PrefixFrom(a.Addr(), 32))
	n.start(t)
	await.Success(t, 5*time.Second, func() error {
		if s := n.state(); s.Err == nil || !contains(s.Err.Error(), "mode direct: eth0 holds no InternalIP") {
			return fmt.Errorf("state %+v", s)
		}
		return nil
	})
}

// TestDirectRoutingComesAndGoes: nodes change their way one after the other,
// from a tunnel over direct routing to no tunnel at all and back, under load,
// and lose nothing; strict reverse path filters notwithstanding.
func TestDirectRoutingComesAndGoes(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 2)
	for _, n := range l.nodes {
		if err := n.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/conf/all/rp_filter", []byte("1"), 0) }); err != nil {
			t.Fatal(err)
		}
	}
	l.startAll(t)
	a, b := l.nodes[0].addPod(t), l.nodes[1].addPod(t)
	reach(t, a, b)
	var streams []*load.Load
	for i := range a.addrs {
		streams = append(streams, newStream(t, a, b, i), newStream(t, b, a, i))
	}
	for range max(soak.Times(10), 2) {
		for _, way := range []struct {
			direct, noTunnel bool
			leadsBy          string
		}{{true, false, "eth0"}, {true, true, "eth0"}, {true, false, "eth0"}, {false, false, device}} {
			for _, n := range l.nodes {
				n.stop()
				n.conf.DirectRouting, n.conf.NoTunnel = way.direct, way.noTunnel
				ready(t, n.start(t))
				streams[0].After(50)
			}
			for _, family := range []string{"4", "6"} {
				l.nodes[0].leadsBy(t, podCIDR(family, 2), way.leadsBy)
				l.nodes[1].leadsBy(t, podCIDR(family, 1), way.leadsBy)
			}
			streams[0].After(50)
		}
	}
	var errs []error
	for i, s := range streams {
		if lost := lostBy(t, s); lost != 0 {
			errs = append(errs, fmt.Errorf("stream %d: %d packets lost", i, lost))
		}
	}
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
}

// TestSmallerPeer: a node whose underlay takes less is not sent more, in
// either way; large packets pass both ways.
func TestSmallerPeer(t *testing.T) {
	t.Parallel()
	for _, direct := range []bool{false, true} {
		l := newLab(t, dual, 2)
		small := l.nodes[1]
		if err := small.NL.LinkSetMTU(small.Link(t, "eth0"), 1400); err != nil {
			t.Fatal(err)
		}
		for _, n := range l.nodes {
			n.conf.DirectRouting = direct
		}
		l.startAll(t)
		a, b := l.nodes[0].addPod(t), small.addPod(t)
		for i, c := range small.self.PodCIDRs {
			routes, err := l.nodes[0].NL.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Dst: space.IPNet(c)}, netlink.RT_FILTER_DST)
			if err != nil || len(routes) != 1 || routes[0].MTU != 1350 {
				t.Errorf("routes to %s: %v, %v, want MTU 1350", c, routes, err)
			}
			if err := errors.Join(push(a.Space, a.addrs[i], b.addrs[i]), push(b.Space, b.addrs[i], a.addrs[i])); err != nil {
				t.Error(err)
			}
		}
	}
}
