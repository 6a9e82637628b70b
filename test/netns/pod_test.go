package netns

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/space"
)

// pod is a namespace behind a veth, wired as the CNI plugin does it.
type pod struct {
	*space.Space
	node  *node
	addrs []netip.Addr
}

const (
	echoPort     = 7
	podLinkGroup = 0x706c
)

// gateways are the next hops inside a pod: addresses that no device has.
var gateways = map[bool]netip.Addr{
	true:  netip.MustParseAddr("169.254.1.1"),
	false: netip.MustParseAddr("fe80::1"),
}

// addPod makes the node's next pod and an echo server in it.
func (n *node) addPod(t testing.TB) *pod {
	t.Helper()
	i := len(n.pods) + 2
	p := &pod{Space: space.New(t), node: n}
	host := fmt.Sprintf("plw%d", i)
	space.Veth(t, n.Space, host, podLinkGroup, p.Space, "eth0")
	hostLink, podLink := n.Link(t, host), p.Link(t, "eth0")
	for _, c := range n.self.PodCIDRs {
		b := c.Addr().AsSlice()
		b[len(b)-1] = byte(i)
		addr, _ := netip.AddrFromSlice(b)
		p.addrs = append(p.addrs, addr)
		one := netip.PrefixFrom(addr, addr.BitLen())
		p.AddAddr(t, "eth0", one)
		gw := gateways[addr.Is4()]
		for _, step := range []struct {
			what string
			err  error
		}{
			{"pod's neighbour", p.NL.NeighSet(neighbour(podLink, gw, hostLink))},
			{"pod's default route", p.NL.RouteAdd(&netlink.Route{
				LinkIndex: podLink.Attrs().Index, Gw: gw.AsSlice(), Flags: int(netlink.FLAG_ONLINK), Dst: anywhere(addr)})},
			{"node's neighbour", n.NL.NeighSet(neighbour(hostLink, addr, podLink))},
			{"node's route", n.NL.RouteAdd(&netlink.Route{
				LinkIndex: hostLink.Attrs().Index, Dst: space.IPNet(one), Protocol: 157, Scope: unix.RT_SCOPE_LINK})},
		} {
			if step.err != nil {
				t.Fatalf("add %s: %v", step.what, step.err)
			}
		}
		echo(t, p.Space, addr)
	}
	n.pods = append(n.pods, p)
	return p
}

func neighbour(dev netlink.Link, ip netip.Addr, at netlink.Link) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: dev.Attrs().Index, State: netlink.NUD_PERMANENT,
		IP: ip.AsSlice(), HardwareAddr: at.Attrs().HardwareAddr,
	}
}

func anywhere(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: make(net.IP, a.BitLen()/8), Mask: net.CIDRMask(0, a.BitLen())}
}

// echo answers each UDP packet with the address and port it came from, and
// each TCP connection with the number of bytes it got.
func echo(t testing.TB, s *space.Space, addr netip.Addr) {
	t.Helper()
	at := netip.AddrPortFrom(addr, echoPort)
	var (
		udp *net.UDPConn
		tcp *net.TCPListener
	)
	err := s.Do(func() (err error) {
		if udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at)); err != nil {
			return err
		}
		tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		t.Fatalf("listen on %s: %v", at, err)
	}
	t.Cleanup(func() { udp.Close(); tcp.Close() })
	go func() {
		buf := make([]byte, 65536)
		for {
			_, from, err := udp.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			fmt.Fprint(writerTo{udp, from}, from)
		}
	}()
	go func() {
		for {
			c, err := tcp.AcceptTCP()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				n, _ := io.Copy(io.Discard, c)
				fmt.Fprint(c, n)
			}()
		}
	}()
}

type writerTo struct {
	*net.UDPConn
	to netip.AddrPort
}

func (w writerTo) Write(b []byte) (int, error) { return w.WriteToUDPAddrPort(b, w.to) }

// ask sends a packet to an echo server and returns who the server thinks sent it.
func ask(s *space.Space, from, to netip.Addr, port uint16) (netip.AddrPort, error) {
	var c *net.UDPConn
	err := s.Do(func() (err error) {
		local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, port))
		c, err = net.DialUDP("udp", local, net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, echoPort)))
		return err
	})
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer c.Close()
	// A packet may be lost while a neighbour of the underlay is resolved.
	buf := make([]byte, 128)
	for range 4 {
		c.SetDeadline(time.Now().Add(500 * time.Millisecond))
		if _, err = c.Write([]byte("who am I?")); err != nil {
			continue
		}
		var n int
		if n, err = c.Read(buf); err == nil {
			return netip.ParseAddrPort(string(buf[:n]))
		}
	}
	return netip.AddrPort{}, fmt.Errorf("ask %s from %s: %w", to, from, err)
}

// push sends many bytes by TCP: full segments and their acknowledgements.
func push(s *space.Space, from, to netip.Addr) error {
	const size = 1 << 20
	var c *net.TCPConn
	err := s.Do(func() (err error) {
		local := net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		c, err = net.DialTCP("tcp", local, net.TCPAddrFromAddrPort(netip.AddrPortFrom(to, echoPort)))
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write(make([]byte, size)); err != nil {
		return fmt.Errorf("push to %s: %w", to, err)
	}
	c.CloseWrite()
	answer, err := io.ReadAll(c)
	if err == nil && string(answer) != fmt.Sprint(size) {
		err = fmt.Errorf("push to %s: %q bytes of %d arrived", to, answer, size)
	}
	return err
}

// reach asserts that a reaches b under its own address, in every family that both have.
func reach(t testing.TB, a, b *pod) {
	t.Helper()
	for _, from := range a.addrs {
		for _, to := range b.addrs {
			if from.Is4() != to.Is4() {
				continue
			}
			seen, err := ask(a.Space, from, to, 0)
			if err != nil {
				t.Errorf("%s to %s: %v", a.node.self.Name, b.node.self.Name, err)
			} else if seen.Addr() != from {
				t.Errorf("%s to %s: the server saw %s instead of %s", a.node.self.Name, b.node.self.Name, seen.Addr(), from)
			}
		}
	}
}

// meet asserts that each of two pods reaches the other.
func meet(t testing.TB, a, b *pod) {
	t.Helper()
	reach(t, a, b)
	reach(t, b, a)
}

// newPair is two nodes that run, each with a pod.
func newPair(t testing.TB, p plan) (l *lab, a, b *pod) {
	t.Helper()
	l = newLab(t, p, 2)
	l.startAll(t)
	return l, l.nodes[0].addPod(t), l.nodes[1].addPod(t)
}
