// Package netns tests the data plane with packets: nodes are network
// namespaces joined by a bridge in one more, each runs the daemon's own
// overlay module, and pods are namespaces behind a veth. Inputs are the
// modules, outputs the tests' verdicts. Namespaces have no names and are held
// by file descriptors only, so that nothing can be left behind, whatever ends
// the tests.
package netns

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/thread"
)

// space is a network namespace.
type space struct {
	fd netns.NsHandle
	nl *netlink.Handle
}

func newSpace(t testing.TB) *space {
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
	// Without duplicate address detection: for two seconds, a new device
	// would have no address to ask for its neighbours with.
	if err := s.do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0) }); err != nil {
		t.Fatal(err)
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

// veth joins two namespaces.
func veth(t testing.TB, a *space, aName string, b *space, bName string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = aName
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

// eventually polls until check returns nil, and fails with its last error.
func eventually(t testing.TB, within time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %v", within, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
