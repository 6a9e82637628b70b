package flow

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

// space is a network namespace, held by a descriptor only.
type space struct {
	fd netns.NsHandle
	nl *netlink.Handle
}

func newSpace(t testing.TB, sysctls ...string) *space {
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
	s := &space{fd: fd, nl: nl}
	sysctls = append(sysctls, "ipv6/conf/default/accept_dad", "0", "ipv4/conf/all/rp_filter", "0", "ipv4/conf/default/rp_filter", "0")
	for i := 0; i < len(sysctls); i += 2 {
		if err := s.do(func() error { return os.WriteFile("/proc/sys/net/"+sysctls[i], []byte(sysctls[i+1]), 0) }); err != nil {
			t.Fatal(err)
		}
	}
	s.up(t, "lo")
	return s
}

// do runs f on a thread inside the namespace. Sockets that f opens stay there.
func (s *space) do(f func() error) error {
	return thread.Discard(func() error {
		if err := netns.Set(s.fd); err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		return f()
	})
}

func (s *space) link(t testing.TB, name string) netlink.Link {
	t.Helper()
	l, err := s.nl.LinkByName(name)
	if err != nil {
		t.Fatalf("find device %s: %v", name, err)
	}
	return l
}

func (s *space) up(t testing.TB, name string) {
	t.Helper()
	if err := s.nl.LinkSetUp(s.link(t, name)); err != nil {
		t.Fatalf("set device %s up: %v", name, err)
	}
}

func (s *space) addAddr(t testing.TB, dev string, addr netip.Prefix) {
	t.Helper()
	a := &netlink.Addr{IPNet: ipNet(addr)}
	if addr.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := s.nl.AddrAdd(s.link(t, dev), a); err != nil {
		t.Fatalf("add address %s to %s: %v", addr, dev, err)
	}
}

// route sends dst through a device, by way of a neighbour whose MAC address
// is known, so that nobody has to be asked.
func (s *space) route(t testing.TB, dst netip.Prefix, dev string, via netip.Addr, mac net.HardwareAddr) {
	t.Helper()
	index := s.link(t, dev).Attrs().Index
	err := s.nl.NeighSet(&netlink.Neigh{LinkIndex: index, State: netlink.NUD_PERMANENT, IP: via.AsSlice(), HardwareAddr: mac})
	if err != nil {
		t.Fatalf("add neighbour %s: %v", via, err)
	}
	r := &netlink.Route{LinkIndex: index, Dst: ipNet(dst), Scope: netlink.SCOPE_LINK}
	if dst.Addr() != via {
		r.Gw, r.Scope = via.AsSlice(), netlink.SCOPE_UNIVERSE
		r.Flags = int(netlink.FLAG_ONLINK)
	}
	if err := s.nl.RouteReplace(r); err != nil {
		t.Fatalf("add route %s: %v", dst, err)
	}
}

// veth joins two namespaces.
func veth(t testing.TB, a *space, aName string, group uint32, b *space, bName string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group = aName, group
	err := a.nl.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: bName, PeerNamespace: netlink.NsFd(int(b.fd))})
	if err != nil {
		t.Fatalf("add veth %s - %s: %v", aName, bName, err)
	}
	a.up(t, aName)
	b.up(t, bName)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
