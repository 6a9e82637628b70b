package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/ethtool"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/space"
)

// TestChecksumFault: a network card that promises to fill in the checksums of
// encapsulated packets and does not is found out and worked round, so that
// connections work; one that keeps its promise keeps its work; and nothing is
// tested where the administrator has decided.
func TestChecksumFault(t *testing.T) {
	t.Parallel()
	for _, underlay := range []string{"4", "6"} {
		t.Run("IPv"+underlay+" underlay", func(t *testing.T) { checksumFault(t, underlay) })
	}
}

func checksumFault(t *testing.T, underlay string) {
	l := newLab(t, plan{pods: []string{"4", "6"}, underlay: []string{underlay}}, 3)
	bad, good, trusting := l.nodes[0], l.nodes[1], l.nodes[2]
	l.spoil(t, "port1")
	l.spoil(t, "port3")
	trusting.conf.Checksums = "on"
	l.startAll(t)
	a, b, c := bad.addPod(t), good.addPod(t), trusting.addPod(t)

	await.Success(t, 20*time.Second, func() error {
		if s := bad.state().Checksums; !s.Faulty || !s.Software || !contains(s.Why, "got wrong ones from eth0") {
			return fmt.Errorf("checksums of the bad card: %+v", s)
		}
		return nil
	})
	await.Success(t, 20*time.Second, func() error {
		if s := good.state().Checksums; s.Faulty || s.Software || !contains(s.Why, "tested with node") {
			return fmt.Errorf("checksums of the good card: %+v", s)
		}
		return nil
	})
	if s := trusting.state().Checksums; s.Software || !contains(s.Why, "as configured") {
		t.Errorf("checksums where they were configured: %+v", s)
	}
	for _, n := range l.nodes {
		await.Success(t, 2*time.Second, func() error { return n.offloads(n != bad) })
	}
	for i := range a.addrs {
		if err := errors.Join(connect(a, a.addrs[i], b.addrs[i]), connect(b, b.addrs[i], a.addrs[i])); err != nil {
			t.Errorf("with the fault worked round: %v", err)
		}
		// So the fault is one.
		if err := connect(c, c.addrs[i], b.addrs[i]); err == nil {
			t.Error("the card that nobody tested spoils nothing")
		}
	}

	// Another program's change is put back, and a restart tests nothing: that
	// would break what works.
	if err := bad.Do(func() error { return ethtool.SetTxChecksum(device, true) }); err != nil {
		t.Fatal(err)
	}
	await.Success(t, time.Second, func() error { return bad.offloads(false) })
	bad.stop()
	ready(t, bad.start(t))
	if s := bad.state().Checksums; !s.Software || !contains(s.Why, "as found at the start") {
		t.Errorf("after a restart: %+v", s)
	}
	if err := bad.offloads(false); err != nil {
		t.Error(err)
	}
}

// TestChecksumsNotTested: where no peer answers, the card is trusted.
func TestChecksumsNotTested(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 2)
	l.nodes[1].conf.Checksums = "off"
	l.startAll(t)
	if err := l.nodes[1].offloads(false); err != nil {
		t.Error(err)
	}
	n := l.nodes[0]
	n.stop()
	// What is not answered: a firewall that drops what nobody listens for.
	l.nodes[1].nft(t, "add table inet other; add chain inet other in { type filter hook input priority 0; }; add rule inet other in udp dport 33434 drop")
	ready(t, n.start(t))
	await.Success(t, 10*time.Second, func() error {
		if s := n.state().Checksums; s.Software || !contains(s.Why, "node worker-2 did not answer") {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	if err := n.offloads(true); err != nil {
		t.Error(err)
	}
}

// offloads checks who fills in the checksums of a node's encapsulated packets.
func (n *node) offloads(want bool) error {
	return n.Do(func() error {
		on, err := ethtool.TxChecksum(device)
		if err == nil && on != want {
			err = fmt.Errorf("%s: checksum offload %v, want %v", n.self.Name, on, want)
		}
		return err
	})
}

// connect opens a TCP connection, or fails within seconds.
func connect(p *pod, from, to netip.Addr) error {
	return p.Do(func() error {
		d := net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
		c, err := d.Dial("tcp", netip.AddrPortFrom(to, echoPort).String())
		if err != nil {
			return fmt.Errorf("connect to %s: %w", to, err)
		}
		return c.Close()
	})
}

// spoil puts a bad network card between a node and the bridge: it fills in the
// checksums it is trusted with, but for those inside of a tunnel.
func (l *lab) spoil(t testing.TB, port string) {
	t.Helper()
	card := space.New(t)
	if err := l.wire.NL.LinkSetNsFd(l.wire.Link(t, port), int(card.FD)); err != nil {
		t.Fatal(err)
	}
	card.Up(t, port)
	space.Veth(t, card, "plug", 0, l.wire, port)
	if err := l.wire.NL.LinkSetMaster(l.wire.Link(t, port), l.wire.Link(t, "br0")); err != nil {
		t.Fatal(err)
	}
	var node, plug int
	if err := card.Do(func() (err error) {
		if node, err = rawSocket(card.Link(t, port).Attrs().Index); err != nil {
			return err
		}
		plug, err = rawSocket(card.Link(t, "plug").Attrs().Index)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var over atomic.Bool
	var both sync.WaitGroup
	both.Go(func() { carry(node, plug, &over, func(start int) bool { return start == 14+20 || start == 14+40 }) })
	both.Go(func() { carry(plug, node, &over, func(int) bool { return true }) })
	t.Cleanup(func() { over.Store(true); both.Wait(); unix.Close(node); unix.Close(plug) })
}

// carry sends on what arrives, with the checksum that is still missing if the
// place where it begins to count is one to care for.
func carry(from, to int, over *atomic.Bool, cares func(start int) bool) {
	const header = 10 // struct virtio_net_hdr: flags, …, start and offset of a checksum
	buf := make([]byte, 1<<17)
	for !over.Load() {
		n, err := unix.Read(from, buf)
		if err != nil {
			continue
		}
		frame := buf[header:n]
		start, offset := int(binary.NativeEndian.Uint16(buf[6:])), int(binary.NativeEndian.Uint16(buf[8:]))
		if missing := buf[0]&1 != 0; missing && cares(start) {
			sum := uint32(0)
			for i := start; i < len(frame); i++ {
				sum += uint32(frame[i]) << (8 * (1 - (i-start)%2))
			}
			for sum>>16 != 0 {
				sum = sum>>16 + sum&0xffff
			}
			binary.BigEndian.PutUint16(frame[start+offset:], ^uint16(sum))
		}
		clear(buf[:header])
		// What is too long for the wire is lost, as it would be there.
		_, _ = unix.Write(to, buf[:n])
	}
}

// rawSocket sees what arrives at a device, whoever it is for, and sends there;
// each frame comes with a header that says what was left to the card. A read
// returns now and then, whatever comes.
func rawSocket(index int) (int, error) {
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	return fd, errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(index), Type: unix.PACKET_MR_PROMISC}),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}),
	)
}
