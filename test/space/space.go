// Package space makes network namespaces for tests and joins them. In: a test
// and sysctls; out: a namespace held by a descriptor only, so that nothing can
// be left behind, whatever ends the test. It refuses names.
package space

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/thread"
)

// Space is a network namespace.
type Space struct {
	// NL speaks netlink inside the namespace.
	NL *netlink.Handle
	// FD is what the namespace lives by.
	FD netns.NsHandle
}

// New makes a namespace with its loopback device up and nothing else in it.
// Sysctls are keys below /proc/sys/net, each followed by its value.
func New(t testing.TB, sysctls ...string) *Space {
	t.Helper()
	var fd netns.NsHandle
	err := thread.Discard(func() (err error) {
		fd, err = netns.New()
		return err
	})
	if err != nil {
		t.Fatalf("make network namespace: %v", err)
	}
	nl, err := netlink.NewHandleAt(fd, unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatalf("open netlink socket in the namespace: %v", err)
	}
	t.Cleanup(func() { nl.Close(); fd.Close() })
	s := &Space{NL: nl, FD: fd}
	// Without duplicate address detection: for two seconds, a new device
	// would have no address to ask for its neighbours with.
	s.Sysctl(t, append(sysctls, "ipv6/conf/default/accept_dad", "0")...)
	s.Up(t, "lo")
	return s
}

// Do runs f on a thread inside the namespace. Sockets that f opens stay there.
func (s *Space) Do(f func() error) error {
	return thread.Discard(func() error {
		if err := netns.Set(s.FD); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

// Sysctl writes keys below /proc/sys/net, each followed by its value.
func (s *Space) Sysctl(t testing.TB, pairs ...string) {
	t.Helper()
	if err := s.Do(func() error {
		for i := 0; i < len(pairs); i += 2 {
			if err := os.WriteFile("/proc/sys/net/"+pairs[i], []byte(pairs[i+1]), 0); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Link finds a device.
func (s *Space) Link(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := s.NL.LinkByName(name)
	if err != nil {
		t.Fatalf("find device %s: %v", name, err)
	}
	return l
}

// Up sets a device up.
func (s *Space) Up(t testing.TB, name string) {
	t.Helper()
	if err := s.NL.LinkSetUp(s.Link(t, name)); err != nil {
		t.Fatalf("set device %s up: %v", name, err)
	}
}

// AddAddr gives a device an address that can be used at once.
func (s *Space) AddAddr(t testing.TB, dev string, addr netip.Prefix) {
	t.Helper()
	a := &netlink.Addr{IPNet: IPNet(addr)}
	if addr.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := s.NL.AddrAdd(s.Link(t, dev), a); err != nil {
		t.Fatalf("add address %s to %s: %v", addr, dev, err)
	}
}

// Route sends dst through a device, by way of a neighbour whose MAC address
// is known, so that nobody has to be asked.
func (s *Space) Route(t testing.TB, dst netip.Prefix, dev string, via netip.Addr, mac net.HardwareAddr) {
	t.Helper()
	index := s.Link(t, dev).Attrs().Index
	err := s.NL.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: via.AsSlice(), HardwareAddr: mac})
	if err != nil {
		t.Fatalf("add neighbour %s: %v", via, err)
	}
	r := &netlink.Route{LinkIndex: index, Dst: IPNet(dst), Scope: netlink.SCOPE_LINK}
	if dst.Addr() != via {
		r.Gw, r.Scope = via.AsSlice(), netlink.SCOPE_UNIVERSE
		r.Flags = int(netlink.FLAG_ONLINK)
	}
	if err := s.NL.RouteReplace(r); err != nil {
		t.Fatalf("add route %s: %v", dst, err)
	}
}

// Veth joins two namespaces by a pair of devices, one in each, and sets both
// up. The first is in a link group.
func Veth(t testing.TB, a *Space, aName string, group uint32, b *Space, bName string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group = aName, group
	err := a.NL.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: bName, PeerNamespace: netlink.NsFd(int(b.FD))})
	if err != nil {
		t.Fatalf("add veth %s - %s: %v", aName, bName, err)
	}
	a.Up(t, aName)
	b.Up(t, bName)
}

// IPNet is the prefix as netlink wants it.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
