package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/load"
	"poplin.dev/poplin/test/space"
)

const device = "poplin-vx"

func contains(s string, any ...string) bool {
	for _, a := range any {
		if strings.Contains(s, a) {
			return true
		}
	}
	return false
}

// inventory is everything on the overlay device and all of our routes, as text.
func (n *node) inventory(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	link, err := n.NL.LinkByName(device)
	if err == nil {
		attrs := link.Attrs()
		fmt.Fprintf(&b, "link mtu %d %s\n", attrs.MTU, attrs.HardwareAddr)
		for _, family := range []int{netlink.FAMILY_ALL, unix.AF_BRIDGE} {
			neighs, err := n.NL.NeighList(attrs.Index, family)
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range neighs {
				if x.State&netlink.NUD_PERMANENT != 0 {
					fmt.Fprintf(&b, "neigh %d %s %s\n", x.Family, x.IP, x.HardwareAddr)
				}
			}
		}
		addrs, err := n.NL.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			fmt.Fprintf(&b, "addr %s\n", a.IPNet)
		}
	}
	routes, err := n.NL.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: 157}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		fmt.Fprintf(&b, "route %s via %s type %d\n", r.Dst, r.Gw, r.Type)
	}
	return b.String()
}

// TestNodeLeaves: its peers forget it and nothing else.
func TestNodeLeaves(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 3)
	l.startAll(t)
	a, b := l.nodes[0].addPod(t), l.nodes[1].addPod(t)
	gone := l.nodes[2]
	gone.stop()
	l.api.change(func() { delete(l.api.nodes, gone.self.Name) })
	for _, n := range l.nodes[:2] {
		await.Success(t, 2*time.Second, func() error {
			if inv := n.inventory(t); contains(inv, "10.244.3.", "fd00:10:244:3:", "192.0.2.3", cluster.MACOf("uid-3").String()) {
				return fmt.Errorf("%s still holds something of the node that left:\n%s", n.self.Name, inv)
			}
			return nil
		})
	}
	meet(t, a, b)
}

// TestNodeComesBackDifferent: a node is made anew under its old name, with
// another identity, thus another MAC address, and another IP address.
func TestNodeComesBackDifferent(t *testing.T) {
	t.Parallel()
	l, a, b := newPair(t, ipv4)
	reach(t, a, b)

	n := l.nodes[1]
	n.stop()
	moved := netip.MustParsePrefix("192.0.2.77/24")
	if err := n.NL.AddrDel(n.Link(t, "eth0"), &netlink.Addr{IPNet: space.IPNet(underlayAddr("4", 2))}); err != nil {
		t.Fatal(err)
	}
	n.AddAddr(t, "eth0", moved)
	n.self.UID, n.self.Addresses = "another uid", []netip.Addr{moved.Addr()}
	l.api.setSelf(n.self)
	ready(t, n.start(t))
	mac := cluster.MACOf("another uid").String()
	await.Success(t, 2*time.Second, func() error {
		inv := l.nodes[0].inventory(t)
		if !contains(inv, mac) || contains(inv, cluster.MACOf("uid-2").String()) {
			return fmt.Errorf("want MAC %s only:\n%s", mac, inv)
		}
		return nil
	})
	meet(t, a, b)
}

// TestNodeAddressChangesAtRunTime: the module follows the Node's InternalIP without a restart.
func TestNodeAddressChangesAtRunTime(t *testing.T) {
	t.Parallel()
	l, a, b := newPair(t, dual)
	n := l.nodes[1]
	n.AddAddr(t, "eth0", netip.MustParsePrefix("192.0.2.77/24"))
	n.self.Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.77"), n.self.Addresses[1]}
	l.api.setSelf(n.self)
	await.Success(t, 2*time.Second, func() error {
		if inv := l.nodes[0].inventory(t); !contains(inv, "192.0.2.77") || contains(inv, "192.0.2.2 ") {
			return fmt.Errorf("want the new address only:\n%s", inv)
		}
		return nil
	})
	meet(t, a, b)
}

// TestMTUFollows: the overlay leaves room for the outer headers, also after
// the underlay changed, and the other nodes are told.
func TestMTUFollows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		plan     plan
		overhead int
	}{{ipv4, 50}, {ipv6, 70}} {
		l := newLab(t, tt.plan, 1)
		l.startAll(t)
		n := l.nodes[0]
		for _, underlay := range []int{1500, 1400, 1500} {
			if err := n.NL.LinkSetMTU(n.Link(t, "eth0"), underlay); err != nil {
				t.Fatal(err)
			}
			await.Success(t, 2*time.Second, func() error {
				l.api.mu.Lock()
				defer l.api.mu.Unlock()
				have, told := n.Link(t, device).Attrs().MTU, l.api.nodes[n.self.Name].MTU
				if want := underlay - tt.overhead; have != want || told != want {
					return fmt.Errorf("device has MTU %d, others were told %d, want %d", have, told, want)
				}
				return nil
			})
		}
	}
}

// TestUnderlayDeviceReplaced: the kernel takes the overlay device away with
// its underlay; both come back.
func TestUnderlayDeviceReplaced(t *testing.T) {
	t.Parallel()
	l, a, b := newPair(t, dual)
	n := l.nodes[0]
	if err := n.NL.LinkDel(n.Link(t, "eth0")); err != nil {
		t.Fatal(err)
	}
	await.Success(t, 2*time.Second, func() error {
		if s := n.state(); s.InPlace || s.Err == nil || !contains(s.Err.Error(), "no device holds one of the Node's InternalIPs") {
			return fmt.Errorf("state %+v", s)
		}
		return nil
	})
	l.plug(t, n.Space, "port1b")
	for _, f := range l.plan.underlay {
		n.AddAddr(t, "eth0", underlayAddr(f, 1))
	}
	await.Success(t, 2*time.Second, func() error {
		if s := n.state(); !s.InPlace {
			return fmt.Errorf("state %+v", s)
		}
		return nil
	})
	meet(t, a, b)
}

// TestNothingBeforeTheFirstCompleteView: until then the kernel stays as it is,
// also as an earlier process left it.
func TestNothingBeforeTheFirstCompleteView(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 2)
	l.startAll(t)
	n := l.nodes[0]
	n.stop()
	before := n.inventory(t)
	self := n.self
	for _, tt := range []struct {
		name string
		hide func()
		show func()
		want string
	}{
		{"nodes", func() { l.api.hidden = true }, func() { l.api.hidden = false }, "list of NodeNetworks"},
		{"Node", func() { delete(l.api.selves, self.Name) }, func() { l.api.selves[self.Name] = self }, "Node object"},
		{"podCIDRs", func() {
			s := self
			s.PodCIDRs = nil
			l.api.selves[self.Name] = s
		}, func() { l.api.selves[self.Name] = self }, "podCIDRs"},
	} {
		l.api.change(tt.hide)
		m := n.start(t)
		await.Success(t, 5*time.Second, func() error {
			if s := n.state(); s.InPlace || s.Err == nil || !contains(s.Err.Error(), tt.want) {
				return fmt.Errorf("%s: state %+v", tt.name, s)
			}
			return nil
		})
		if after := n.inventory(t); after != before {
			t.Errorf("%s: the kernel changed from\n%sto\n%s", tt.name, before, after)
		}
		l.api.change(tt.show)
		ready(t, m)
		n.stop()
		if after := n.inventory(t); after != before {
			t.Errorf("%s: in the end the kernel changed from\n%sto\n%s", tt.name, before, after)
		}
	}
}

// TestSysctlsFail: where settings cannot be written, peers are programmed all
// the same, and pods do not start.
func TestSysctlsFail(t *testing.T) {
	t.Parallel()
	l := newLab(t, ipv4, 2)
	ready(t, l.nodes[1].start(t))
	n := l.nodes[0]
	n.conf.SysctlRoot = t.TempDir() // such as a mount that was forgotten
	n.start(t)
	await.Success(t, 5*time.Second, func() error {
		if s := n.state(); s.InPlace || s.Err == nil || !contains(s.Err.Error(), "sysctl net/ipv4/ip_forward") {
			return fmt.Errorf("state %+v", s)
		}
		return n.hasRoute(podCIDR("4", 2))
	})
}

// TestPublishFails: peers are programmed all the same, and the node is not in place until others know it.
func TestPublishFails(t *testing.T) {
	t.Parallel()
	l := newLab(t, ipv4, 2)
	ready(t, l.nodes[1].start(t))
	l.api.change(func() { l.api.fail = errors.New("the API server is away") })
	n := l.nodes[0]
	m := n.start(t)
	await.Success(t, 5*time.Second, func() error { return n.hasRoute(podCIDR("4", 2)) })
	await.Success(t, time.Second, func() error {
		if s := n.state(); s.InPlace || s.Err == nil || !contains(s.Err.Error(), "publish NodeNetwork worker-1: the API server is away") {
			return fmt.Errorf("state %+v", s)
		}
		return nil
	})
	l.api.change(func() { l.api.fail = nil })
	ready(t, m)
}

// TestRestartLosesNothing: a thousand numbered packets a second pass while
// the module is stopped and started again, and what became stale meanwhile goes.
func TestRestartLosesNothing(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 3)
	l.startAll(t)
	a, b := l.nodes[0].addPod(t), l.nodes[1].addPod(t)
	for i := range a.addrs {
		reach(t, a, b)
		s := newStream(t, a, b, i)
		for _, n := range l.nodes {
			n.stop()
		}
		l.api.change(func() { delete(l.api.nodes, "worker-3") })
		s.After(300)
		ready(t, l.nodes[0].start(t))
		ready(t, l.nodes[1].start(t))
		s.After(300)
		if lost := lostBy(t, s); lost != 0 {
			t.Errorf("%s to %s: %d packets lost", a.addrs[i], b.addrs[i], lost)
		}
		if inv := l.nodes[0].inventory(t); contains(inv, "10.244.3.", "fd00:10:244:3:", "192.0.2.3") {
			t.Errorf("something of the node that left meanwhile stayed:\n%s", inv)
		}
		ready(t, l.nodes[2].start(t))
		l.converged(t)
	}
}

// newStream is load from one pod to another's i-th address, and back.
func newStream(t testing.TB, from, to *pod, i int) *load.Load {
	t.Helper()
	server := load.Listen(t, to.Do, netip.AddrPortFrom(to.addrs[i], 0))
	return load.Start(t, from.Do, server.Addr, server)
}

// lostBy ends a load and counts its packets that were lost; no connection may be.
func lostBy(t testing.TB, l *load.Load) int {
	t.Helper()
	r := l.Stop()
	t.Log(r)
	if len(r.Failed) > 0 {
		t.Errorf("%d connections failed", len(r.Failed))
	}
	return r.Lost()
}

// TestInterfaceChoice: the device with the node's address is taken where the
// choice allows it, and where it does not, the state says so.
func TestInterfaceChoice(t *testing.T) {
	t.Parallel()
	l := newLab(t, ipv4, 1)
	n := l.nodes[0]
	for choice, want := range map[string]string{
		"":                     "",
		"eth0":                 "",
		"regexp:^eth[0-9]$":    "",
		"cidr:192.0.2.0/24":    "",
		"reach:192.0.2.9":      "",
		"lo":                   "device lo holds none of the Node's InternalIPs",
		"regexp:^lo$":          "check interface in the configuration",
		"cidr:198.51.100.0/24": "check interface in the configuration",
		"reach:203.0.113.1":    "find route to 203.0.113.1",
		"reach:127.0.0.1":      "check interface in the configuration",
	} {
		n.conf.Interface = choice
		m := n.start(t)
		if want == "" {
			ready(t, m)
		} else {
			await.Success(t, 3*time.Second, func() error {
				if s := n.state(); s.InPlace || s.Err == nil || !contains(s.Err.Error(), want) {
					return fmt.Errorf("%s: state %+v, want %q", choice, s, want)
				}
				return nil
			})
		}
		n.stop()
	}
}
