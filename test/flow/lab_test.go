// Package flow sends packets to Services: one node with pods, a pod of
// another node and clients elsewhere are network namespaces, the node's kernel
// holds what the compiler made of the objects, and each row of a table says
// by hand who must answer and which source address it must see. The same rows
// are asked of pkg/trace. Namespaces have no names, so nothing can be left
// behind, whatever ends the tests.
package flow

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	applyvip "poplin.dev/poplin/pkg/apply/vip"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/vip"
	"poplin.dev/poplin/pkg/services"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/space"
)

// places are the addresses of everything, by name: IPv4, IPv6.
var places = map[string][2]string{
	"pod1":       {"10.244.1.2", "fd00:244:1::2"},
	"pod2":       {"10.244.1.3", "fd00:244:1::3"},
	"remote":     {"10.244.2.2", "fd00:244:2::2"}, // a pod of another node
	"node":       {"172.30.0.11", "fd00:30::11"},
	"client":     {"192.0.2.7", "2001:db8:c::7"},
	"stranger":   {"192.0.2.200", "2001:db8:c::200"},
	"elsewhere":  {"198.51.100.9", "2001:db8:e::9"}, // what no Service must answer for
	"vip":        {"10.96.0.10", "fd00:96::10"},
	"unassigned": {"10.96.0.99", "fd00:96::99"},
	"external":   {"203.0.113.1", "2001:db8:1::1"},
	"localhost":  {"127.0.0.1", "::1"},
	"cache":      {"169.254.20.10", "fd00:20::10"}, // of NodeLocal DNSCache
}

// at is the address of a place in one family.
func at(place string, ipv6 bool) netip.Addr {
	p, ok := places[place]
	if !ok {
		panic("no place " + place)
	}
	if ipv6 {
		return netip.MustParseAddr(p[1])
	}
	return netip.MustParseAddr(p[0])
}

// placeOf is the name for an address.
func placeOf(a netip.Addr) string {
	for name := range places {
		if at(name, false) == a || at(name, true) == a {
			return name
		}
	}
	return a.String()
}

// lab is the node under test and what surrounds it.
type lab struct {
	node   *space.Space
	homes  map[string]*space.Space // where a place's sockets are
	kernel *applyvip.Table
	table  *services.Table
	// patience is how long no answer must come for silence.
	patience time.Duration
}

// patience is a lab's where silence may be the right answer.
const patience = 250 * time.Millisecond

func newLab(t testing.TB) *lab {
	t.Helper()
	need.Link(t, "veth")
	l := &lab{homes: map[string]*space.Space{}, patience: patience}
	l.node = newSpace(t, "ipv4/ip_forward", "1", "ipv6/conf/all/forwarding", "1")
	l.homes["node"] = l.node
	outside := l.join(t, "eth0", 0, "client", "stranger", "elsewhere")
	l.join(t, "plw1", vip.PodGroup, "pod1")
	l.join(t, "plw2", vip.PodGroup, "pod2")
	l.join(t, "eth1", 0, "remote")
	mac := outside.Link(t, "eth0").Attrs().HardwareAddr
	for _, ipv6 := range []bool{false, true} {
		all := netip.MustParsePrefix("0.0.0.0/0")
		if ipv6 {
			all = netip.MustParsePrefix("::/0")
		}
		l.node.Route(t, all, "eth0", at("client", ipv6), mac) // as nodes have one
		a := at("node", ipv6)
		l.node.AddAddr(t, "eth0", netip.PrefixFrom(a, a.BitLen()))
	}
	for _, place := range []string{"pod1", "pod2", "remote", "node"} {
		l.serve(t, place, l.homes[place])
	}
	l.serve(t, "elsewhere", outside)
	if err := l.node.Do(func() (err error) {
		l.kernel, err = applyvip.Open(applyvip.Config{Log: slog.New(slog.DiscardHandler)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.kernel.Close() })
	l.table = services.NewTable(labNode(), vip.New())
	l.sync(t)
	return l
}

// newSpace makes a namespace that takes packets from every side.
func newSpace(t testing.TB, sysctls ...string) *space.Space {
	t.Helper()
	return space.New(t, append(sysctls, "ipv4/conf/all/rp_filter", "0", "ipv4/conf/default/rp_filter", "0")...)
}

// join makes a namespace with the addresses of some places, of which the node
// is the only neighbour.
func (l *lab) join(t testing.TB, dev string, group uint32, names ...string) *space.Space {
	t.Helper()
	s := newSpace(t)
	space.Veth(t, l.node, dev, group, s, "eth0")
	here, there := s.Link(t, "eth0").Attrs().HardwareAddr, l.node.Link(t, dev).Attrs().HardwareAddr
	for _, ipv6 := range []bool{false, true} {
		gateway, all := netip.MustParseAddr("169.254.1.1"), netip.MustParsePrefix("0.0.0.0/0")
		if ipv6 {
			gateway, all = netip.MustParseAddr("fe80::1"), netip.MustParsePrefix("::/0")
		}
		for _, name := range names {
			a := at(name, ipv6)
			own := netip.PrefixFrom(a, a.BitLen())
			s.AddAddr(t, "eth0", own)
			l.node.Route(t, own, dev, a, here)
		}
		s.Route(t, all, "eth0", gateway, there)
	}
	for _, name := range names {
		l.homes[name] = s
	}
	return s
}

func labNode() services.Node {
	n := services.Node{
		Name: "worker-1", Zone: "east", OverlayPort: 8472,
		IsNodeAddress: func(a netip.Addr) bool { return placeOf(a) == "node" },
		ServiceRanges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:96::/112")},
		ExternalRanges: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"),
			netip.MustParsePrefix("2001:db8:1::/64")},
	}
	for _, ipv6 := range []bool{false, true} {
		n.Addresses = append(n.Addresses, at("node", ipv6))
		n.NodePortAddresses = append(n.NodePortAddresses, at("node", ipv6), at("localhost", ipv6))
	}
	return n
}

// sync sends what has changed, as the daemon would.
func (l *lab) sync(t testing.TB) {
	t.Helper()
	if err := l.kernel.Apply(l.table.Take()); err != nil {
		t.Fatal(err)
	}
}

// Ports at which everybody listens, for TCP and for UDP.
var listened = []uint16{8080, 9090, 80}

// serve answers connections with the name of the place and the source it saw.
func (l *lab) serve(t testing.TB, place string, s *space.Space) {
	t.Helper()
	for _, ipv6 := range []bool{false, true} {
		for _, port := range listened {
			addr := netip.AddrPortFrom(at(place, ipv6), port)
			var (
				tcp net.Listener
				udp *net.UDPConn
			)
			if err := s.Do(func() (err error) {
				if tcp, err = net.Listen("tcp", addr.String()); err != nil {
					return err
				}
				udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { tcp.Close(); udp.Close() })
			go answerTCP(tcp, place)
			go answerUDP(udp, place)
		}
	}
}

func answer(place string, port uint16, from netip.Addr) []byte {
	return fmt.Appendf(nil, "%s:%d sees %s", place, port, placeOf(from.Unmap()))
}

func answerTCP(l net.Listener, place string) {
	port := netip.MustParseAddrPort(l.Addr().String()).Port()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			c.Write(answer(place, port, netip.MustParseAddrPort(c.RemoteAddr().String()).Addr()))
			c.Read(make([]byte, 1)) // until the client is gone
		}()
	}
}

func answerUDP(c *net.UDPConn, place string) {
	port := netip.MustParseAddrPort(c.LocalAddr().String()).Port()
	buf := make([]byte, 64)
	for {
		_, from, err := c.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		c.WriteToUDPAddrPort(answer(place, port, from.Addr()), from)
	}
}

// ask opens one connection and returns the answer, or "refused" or "silence".
func (l *lab) ask(t testing.TB, from, to string, proto service.Protocol, port uint16, ipv6 bool) string {
	t.Helper()
	var (
		conn net.Conn
		err  error
	)
	src, dst := at(from, ipv6), netip.AddrPortFrom(at(to, ipv6), port)
	if to == "localhost" {
		src = at("localhost", ipv6)
	}
	enter := l.homes[from].Do(func() error {
		d := net.Dialer{Timeout: l.patience, LocalAddr: &net.TCPAddr{IP: src.AsSlice()}}
		if proto == service.UDP {
			d.LocalAddr = &net.UDPAddr{IP: src.AsSlice()}
		}
		conn, err = d.Dial(proto.String(), dst.String())
		return nil
	})
	if enter != nil {
		t.Fatal(enter)
	}
	buf, n := make([]byte, 64), 0
	if err == nil {
		defer conn.Close()
		if tcp, ok := conn.(*net.TCPConn); ok {
			// By a reset: no end keeps the ports for a while, which many
			// connections in a row would otherwise run into.
			tcp.SetLinger(0)
		}
		conn.SetDeadline(time.Now().Add(l.patience))
		if proto == service.UDP {
			// A packet that this host itself stops is an error of the write;
			// whether it was refused shows afterwards.
			if _, err = conn.Write([]byte("?")); errors.Is(err, unix.EPERM) {
				err = nil
			}
		}
		if err == nil {
			n, err = conn.Read(buf)
		}
	}
	var timeout net.Error
	switch {
	case err == nil:
		return string(buf[:n])
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.As(err, &timeout) && timeout.Timeout() && (conn == nil || proto == service.UDP):
		return "silence"
	}
	return err.Error()
}

// survey asks often enough to meet every endpoint, and lists the answers.
func (l *lab) survey(t testing.TB, from, to string, proto service.Protocol, port uint16, ipv6 bool) string {
	t.Helper()
	met := map[string]bool{}
	for range 40 {
		a := l.ask(t, from, to, proto, port, ipv6)
		met[a] = true
		if a == "silence" || a == "refused" {
			break
		}
	}
	var list []string
	for a := range met {
		list = append(list, a)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
