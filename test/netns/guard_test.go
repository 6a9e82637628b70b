package netns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/forge"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/space"
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
			thief.AddAddr(t, "eth0", netip.PrefixFrom(stolen, stolen.BitLen()))
			send(t, thief.Space, stolen, netip.AddrPortFrom(remote.addrs[i], 9), stolen.String())
			if err := thief.NL.AddrDel(thief.Link(t, "eth0"), &netlink.Addr{IPNet: space.IPNet(netip.PrefixFrom(stolen, stolen.BitLen()))}); err != nil {
				t.Fatal(err)
			}
		}
		// Comes last, so that all before it would have been heard.
		send(t, thief.Space, genuine, netip.AddrPortFrom(remote.addrs[i], 9), "genuine")
		if got := heard(t); got != "genuine" {
			t.Errorf("the pod heard %q", got)
		}
	}
}

var outsideAddrs = []netip.Addr{netip.MustParseAddr("198.51.100.1"), netip.MustParseAddr("2001:db8:9::1")}

// TestForgedOverlayPackets: an overlay packet that knows everything a genuine
// one does is delivered only if a node sends it: not straight from a pod, be
// it lent its node's address or not, not through a port that is translated to
// the overlay's, and not from a host that is no node.
func TestForgedOverlayPackets(t *testing.T) {
	t.Parallel()
	const packets = 1000
	nft := need.Program(t, "nft", "nftables")
	l := newLab(t, dual, 3)
	l.startAll(t)
	stranger, _ := outside(t, l)
	here, there := l.nodes[0], l.nodes[1]
	victim := here.addPod(t)
	local, remote := here.addPod(t), there.addPod(t)
	reach(t, victim, remote)
	// What a Service or host port with the node's own overlay port does.
	if err := here.Do(func() error {
		out, err := exec.Command(nft, "add table inet other; add chain inet other nat { type nat hook prerouting priority -100; };"+
			" add rule inet other nat udp dport { 30000, 8473 } dnat ip to 192.0.2.1:8472;").CombinedOutput()
		if err != nil {
			return fmt.Errorf("nft: %w: %s", err, out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	heard := forge.Hear(t, victim.Do, 9)
	packet := func(text string) string {
		return forge.VXLAN(cluster.MACOf("uid-2"), cluster.MACOf("uid-1"),
			netip.AddrPortFrom(netip.MustParseAddr("10.244.2.77"), 9), netip.AddrPortFrom(victim.addrs[0], 9), text)
	}
	node, second := here.self.Addresses[0], netip.MustParseAddr("192.0.2.61")
	here.AddAddr(t, "eth0", netip.PrefixFrom(second, 24))
	for _, from := range []struct {
		who  string
		s    *space.Space
		addr netip.Addr
		port uint16
	}{
		{"a pod of another node, to an address that no peer knows", remote.Space, remote.addrs[0], 0},
		{"a pod of this node", local.Space, local.addrs[0], 8472},
		{"a pod of this node, through a translated port", local.Space, local.addrs[0], 30000},
		{"a pod of another node", remote.Space, remote.addrs[0], 8472},
		{"a pod of another node, through a translated port", remote.Space, remote.addrs[0], 30000},
		{"another node, through a translated port", there.Space, there.self.Addresses[0], 8473},
		{"a host that is no node", stranger, netip.MustParseAddr("192.0.2.99"), 8472},
		{"a host that is no node, through a translated port", stranger, netip.MustParseAddr("192.0.2.99"), 30000},
	} {
		before := forged(t, here) + forged(t, there)
		to := netip.AddrPortFrom(node, from.port)
		if from.port == 0 {
			to = netip.AddrPortFrom(second, 8472)
		}
		sendMany(t, from.s, from.addr, to, packet("forged"), packets)
		await.Success(t, 5*time.Second, func() error {
			if got := forged(t, here) + forged(t, there) - before; got != packets {
				return fmt.Errorf("%s: %d of %d packets were counted as dropped", from.who, got, packets)
			}
			return nil
		})
		// The same bytes from a peer arrive, and come after all before them.
		control := "control " + from.who
		sendMany(t, there.Space, there.self.Addresses[0], netip.AddrPortFrom(node, 8472), packet(control), 1)
		await.Success(t, 2*time.Second, func() error {
			if heard()[control] == 0 {
				return errors.New("the control did not arrive")
			}
			return nil
		})
		if n := heard()["forged"]; n != 0 {
			t.Errorf("%s: %d of %d forged packets were delivered", from.who, n, packets)
		}
	}
	reach(t, victim, remote)
	reach(t, remote, local)
}

// forged is how many overlay packets a node's guards dropped.
func forged(t testing.TB, n *node) uint64 { return n.drops(t)["guard-forged"] }

func (n *node) drops(t testing.TB) map[string]uint64 {
	t.Helper()
	counters, err := n.table.Counters()
	if err != nil {
		t.Fatal(err)
	}
	return counters
}

// TestGenuinePacketsAreUntracked: what the guards let through costs no entry
// of connection tracking, at neither end.
func TestGenuinePacketsAreUntracked(t *testing.T) {
	t.Parallel()
	l, a, b := newPair(t, dual)
	reach(t, a, b)
	for _, n := range l.nodes {
		h, err := netlink.NewHandleAt(n.FD, unix.NETLINK_NETFILTER)
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		flows, err := h.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		if err != nil {
			t.Fatal(err)
		}
		inner := 0
		for _, f := range flows {
			if f.Forward.DstPort == 8472 {
				t.Errorf("%s tracks %s", n.self.Name, f)
			}
			if f.Forward.DstPort == echoPort {
				inner++
			}
		}
		if inner == 0 {
			t.Errorf("%s tracks nothing of the pods either: %v", n.self.Name, flows)
		}
	}
}

// TestNoPodIsARouter: a pod's router advertisements and redirects go nowhere.
func TestNoPodIsARouter(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 2)
	l.startAll(t)
	thief, neighbour := l.nodes[0].addPod(t), l.nodes[0].addPod(t)
	reach(t, thief, neighbour)
	before := l.nodes[0].drops(t)["guard-router"]
	const each = 10
	for _, m := range []struct {
		network string
		kind    byte
		from    netip.Addr
		to      netip.Addr
	}{
		{"ip6:ipv6-icmp", 134, thief.addrs[1], neighbour.addrs[1]},
		{"ip6:ipv6-icmp", 137, thief.addrs[1], neighbour.addrs[1]},
		{"ip6:ipv6-icmp", 134, thief.addrs[1], l.nodes[0].self.Addresses[1]},
		{"ip4:icmp", 5, thief.addrs[0], neighbour.addrs[0]},
	} {
		err := thief.Do(func() error {
			c, err := net.DialIP(m.network, &net.IPAddr{IP: m.from.AsSlice()}, &net.IPAddr{IP: m.to.AsSlice()})
			if err != nil {
				return err
			}
			defer c.Close()
			for range each {
				if _, err := c.Write(append([]byte{m.kind, 0, 0, 0}, make([]byte, 20)...)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	await.Success(t, 2*time.Second, func() error {
		if got := l.nodes[0].drops(t)["guard-router"] - before; got != 4*each {
			return fmt.Errorf("%d of %d were dropped", got, 4*each)
		}
		return nil
	})
	reach(t, thief, neighbour)
}

// listen returns a function that waits for the next packet at a pod's port.
func listen(t testing.TB, p *pod, port uint16) func(testing.TB) string {
	t.Helper()
	var c *net.UDPConn
	err := p.Do(func() (err error) {
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

func send(t testing.TB, s *space.Space, from netip.Addr, to netip.AddrPort, text string) {
	t.Helper()
	sendMany(t, s, from, to, text, 1)
}

func sendMany(t testing.TB, s *space.Space, from netip.Addr, to netip.AddrPort, text string, times int) {
	t.Helper()
	err := s.Do(func() error {
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer c.Close()
		for range times {
			if _, err := fmt.Fprint(c, text); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("send from %s to %s: %v", from, to, err)
	}
}
