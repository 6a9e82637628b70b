package netns

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/pkg/cluster"
)

// TestSpoofedSourceIsDropped: a pod that takes another address, be it that of
// a pod here, of one on another node or of nobody, is not heard under it.
func TestSpoofedSourceIsDropped(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 2)
	l.startAll(t)
	thief, neighbour, remote := l.nodes[0].addPod(t), l.nodes[0].addPod(t), l.nodes[1].addPod(t)
	reach(t, thief, remote)
	heard := listen(t, remote, 9)
	for i, genuine := range thief.addrs {
		for _, stolen := range []netip.Addr{neighbour.addrs[i], l.nodes[1].self.PodCIDRs[i].Addr(), outsideAddrs[i]} {
			thief.addAddr(t, "eth0", netip.PrefixFrom(stolen, stolen.BitLen()))
			send(t, thief.space, stolen, netip.AddrPortFrom(remote.addrs[i], 9), stolen.String())
			if err := thief.nl.AddrDel(thief.link(t, "eth0"), &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(stolen, stolen.BitLen()))}); err != nil {
				t.Fatal(err)
			}
		}
		// Comes last, so that all before it would have been heard.
		send(t, thief.space, genuine, netip.AddrPortFrom(remote.addrs[i], 9), "genuine")
		if got := heard(t); got != "genuine" {
			t.Errorf("the pod heard %q", got)
		}
	}
}

var outsideAddrs = []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:9::1")}

// TestForgedOverlayPacketsAreDropped: an overlay packet that a pod sends to
// another node does not come out there, though the pod knows everything that
// is in a genuine one, and its node would lend it the right outer address.
func TestForgedOverlayPacketsAreDropped(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 2)
	l.startAll(t)
	thief, victim := l.nodes[0].addPod(t), l.nodes[1].addPod(t)
	heard := listen(t, victim, 9)
	forged := vxlan(cluster.MACOf("uid-1"), cluster.MACOf("uid-2"),
		netip.AddrPortFrom(netip.MustParseAddr("10.244.1.77"), 9), netip.AddrPortFrom(victim.addrs[0], 9), "forged")
	node := l.nodes[1].self.Addresses[0]
	send(t, thief.space, thief.addrs[0], netip.AddrPortFrom(node, 8472), forged)
	// The same packet from the node itself is genuine: the forgery was a good one.
	send(t, l.nodes[0].space, l.nodes[0].self.Addresses[0], netip.AddrPortFrom(node, 8472),
		vxlan(cluster.MACOf("uid-1"), cluster.MACOf("uid-2"),
			netip.AddrPortFrom(netip.MustParseAddr("10.244.1.77"), 9), netip.AddrPortFrom(victim.addrs[0], 9), "genuine"))
	if got := heard(t); got != "genuine" {
		t.Errorf("the pod heard %q", got)
	}
}

// listen returns a function that waits for the next packet at a pod's port.
func listen(t testing.TB, p *pod, port uint16) func(testing.TB) string {
	t.Helper()
	var c *net.UDPConn
	err := p.do(func() (err error) {
		c, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return func(t testing.TB) string {
		t.Helper()
		c.SetReadDeadline(time.Now().Add(2 * time.Second))
		buf := make([]byte, 2048)
		n, _, err := c.ReadFromUDP(buf)
		if err != nil {
			t.Errorf("nothing was heard: %v", err)
		}
		return string(buf[:n])
	}
}

func send(t testing.TB, s *space, from netip.Addr, to netip.AddrPort, text string) {
	t.Helper()
	err := s.do(func() error {
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = fmt.Fprint(c, text)
		return err
	})
	if err != nil {
		t.Fatalf("send from %s to %s: %v", from, to, err)
	}
}

// vxlan is what a VTEP puts into UDP: VXLAN, Ethernet, IPv4 and UDP headers,
// the last without a checksum.
func vxlan(src, dst cluster.MAC, from, to netip.AddrPort, text string) string {
	udp := append([]byte{
		byte(from.Port() >> 8), byte(from.Port()), byte(to.Port() >> 8), byte(to.Port()), 0, byte(8 + len(text)), 0, 0,
	}, text...)
	ip := []byte{0x45, 0, 0, byte(20 + len(udp)), 0, 0, 0, 0, 64, 17, 0, 0}
	ip = append(append(ip, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	sum := 0
	for i := 0; i < len(ip); i += 2 {
		sum += int(ip[i])<<8 | int(ip[i+1])
	}
	sum = sum>>16 + sum&0xffff
	sum = ^(sum>>16 + sum)
	ip[10], ip[11] = byte(sum>>8), byte(sum)
	frame := append([]byte{0x08, 0, 0, 0, 0, 0, 1, 0}, dst[:]...)
	frame = append(append(frame, src[:]...), 0x08, 0x00)
	return string(append(append(frame, ip...), udp...))
}
