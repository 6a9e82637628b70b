package netns

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/forge"
)

// TestRawSocketsMoveNothing: a pod that may write whole frames says that it is
// another pod, its gateway, the node or a router, by their MAC addresses, in
// ARP, in neighbour discovery and under their IP addresses. No other pod's
// packet moves, and the node believes nothing.
func TestRawSocketsMoveNothing(t *testing.T) {
	t.Parallel()
	const packets = 1000
	l := newLab(t, dual, 2)
	l.startAll(t)
	n := l.nodes[0]
	thief, neighbour, remote := n.addPod(t), n.addPod(t), l.nodes[1].addPod(t)
	before := n.beliefs(t)
	there, back := newStream(t, remote, neighbour, 0), newStream(t, neighbour, remote, 1)
	heard, overheard, arrived := forge.Hear(t, remote.Do, 9), forge.Hear(t, thief.Do, 9), forge.Hear(t, neighbour.Do, 9)

	own, its := cluster.MAC(thief.Link(t, "eth0").Attrs().HardwareAddr), cluster.MAC(neighbour.Link(t, "eth0").Attrs().HardwareAddr)
	gate := n.Link(t, "plw2").Attrs().HardwareAddr
	for _, a := range neighbour.addrs { // it would answer in the neighbour's place
		thief.AddAddr(t, "eth0", netip.PrefixFrom(a, a.BitLen()))
	}
	udp := func(mac cluster.MAC, from netip.Addr, text string) string {
		const outer = 8 // the header of VXLAN
		return forge.VXLAN(mac, cluster.MAC(gate), netip.AddrPortFrom(from, 9), netip.AddrPortFrom(remote.addrs[0], 9), text)[outer:]
	}
	drops := n.drops(t)
	thief.frames(t, packets, udp(own, neighbour.addrs[0], "under its address"))
	thief.frames(t, packets, udp(its, neighbour.addrs[0], "under both its addresses"))
	thief.frames(t, packets, udp(its, thief.addrs[0], "under its MAC address")) // nobody's business: the link says whose it is
	for _, claimed := range []netip.Addr{neighbour.addrs[0], gateways[true], n.self.Addresses[0]} {
		thief.frames(t, packets, arp(own, cluster.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, claimed))
		thief.frames(t, packets, arp(own, cluster.MAC(gate), claimed))
	}
	thief.advertise(t, packets, 134, append([]byte{64, 0, 255, 255}, make([]byte, 8)...)) // a router, for hours
	for _, claimed := range []netip.Addr{neighbour.addrs[1], gateways[false]} {
		target := claimed.As16()
		thief.advertise(t, packets, 136, append(append([]byte{0x20, 0, 0, 0}, target[:]...), append([]byte{2, 1}, own[:]...)...))
	}
	await.Success(t, 5*time.Second, func() error {
		now := n.drops(t)
		if s, r := now["guard-spoofed"]-drops["guard-spoofed"], now["guard-router"]-drops["guard-router"]; s != 2*packets || r != packets {
			return fmt.Errorf("%d spoofed packets and %d of a router were dropped, want %d and %d", s, r, 2*packets, packets)
		}
		return nil
	})
	thief.frames(t, 1, udp(own, thief.addrs[0], "genuine"))
	await.Success(t, 5*time.Second, func() error {
		if heard()["genuine"] == 0 {
			return errors.New("the genuine one did not arrive")
		}
		return nil
	})
	if h := heard(); h["under its address"]+h["under both its addresses"] != 0 {
		t.Errorf("delivered: %v", h)
	}
	for i, a := range neighbour.addrs {
		sendMany(t, remote.Space, remote.addrs[i], netip.AddrPortFrom(a, 9), "for the neighbour", packets)
	}
	there.After(100)
	there.Stop().Lossless(t)
	back.Stop().Lossless(t)
	if h := overheard(); len(h) != 0 || arrived()["for the neighbour"] == 0 {
		t.Errorf("the thief heard %v, the neighbour %v", h, arrived())
	}
	if after := n.beliefs(t); !slices.Equal(after, before) {
		t.Errorf("the node believed:\n%v\nbefore:\n%v", after, before)
	}
}

// beliefs are what others could make a node believe of pods' links: neighbours,
// addresses of its own, and routes.
func (n *node) beliefs(t testing.TB) (list []string) {
	t.Helper()
	for i := range n.pods {
		link := n.Link(t, fmt.Sprintf("plw%d", i+2))
		neighs, err := n.NL.NeighList(link.Attrs().Index, netlink.FAMILY_ALL)
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range neighs {
			if x.State != netlink.NUD_NOARP { // the kernel's own, for multicast
				list = append(list, fmt.Sprintf("%s neighbour %s %s", link.Attrs().Name, x.IP, x.HardwareAddr))
			}
		}
		addrs, err := n.NL.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			list = append(list, fmt.Sprintf("%s address %s", link.Attrs().Name, a.IPNet))
		}
	}
	routes, err := n.NL.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		list = append(list, r.String())
	}
	slices.Sort(list)
	return list
}

// frames writes whole frames.
func (p *pod) frames(t testing.TB, times int, frame string) {
	t.Helper()
	index := p.Link(t, "eth0").Attrs().Index
	if err := p.Do(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for range times {
			if err := unix.Sendto(fd, []byte(frame), 0, &unix.SockaddrLinklayer{Ifindex: index}); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// arp is an answer that nobody asked for: an address is at a MAC address.
func arp(at, to cluster.MAC, claimed netip.Addr) string {
	const reply = 2
	f := append(append(slices.Clone(to[:]), at[:]...), 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, reply)
	f = append(append(f, at[:]...), claimed.AsSlice()...)
	return string(append(append(f, to[:]...), claimed.AsSlice()...))
}

// advertise sends a message of neighbour discovery to all nodes of the link.
func (p *pod) advertise(t testing.TB, times int, kind byte, body []byte) {
	t.Helper()
	index := p.Link(t, "eth0").Attrs().Index
	if err := p.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		// Others are not listened to (RFC 4861, sections 6.1.2 and 7.1.2).
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, 255); err != nil {
			return err
		}
		all := netip.MustParseAddr("ff02::1").As16()
		for range times {
			if err := unix.Sendto(fd, append([]byte{kind, 0, 0, 0}, body...), 0, &unix.SockaddrInet6{Addr: all, ZoneId: uint32(index)}); err != nil {
				return fmt.Errorf("send ICMPv6 type %d: %w", kind, err)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
