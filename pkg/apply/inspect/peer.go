package inspect

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/facts"
)

// probePort is where traceroute begins: nobody listens there, and firewalls
// know it. That a node says so shows both ways to work.
const probePort = 33434

// waits are how long an answer is waited for, time after time. A node refuses
// a TCP connection whenever it is asked, but answers UDP about once a second
// only (icmp_ratelimit).
var waits = []time.Duration{150 * time.Millisecond, 300 * time.Millisecond, 650 * time.Millisecond}

// Peers sends packets to other nodes.
func Peers(ways []facts.Way) []facts.Peer {
	list := make([]facts.Peer, len(ways))
	var wg sync.WaitGroup
	for i, w := range ways {
		wg.Go(func() { list[i] = peer(w) })
	}
	wg.Wait()
	return list
}

func peer(w facts.Way) facts.Peer {
	p := facts.Peer{Way: w}
	var wg sync.WaitGroup
	wg.Go(func() { p.Below = refused(netip.Addr{}, w.Outer) })
	nearly := false
	if w.Inner.IsValid() {
		wg.Go(func() { p.Small = refused(w.From, w.Inner) })
		wg.Go(func() { p.Large = answered(w.From, w.Inner, w.MTU) })
		wg.Go(func() { nearly = carried(w.From, w.Inner, w.MTU-synShort) })
	}
	wg.Wait()
	switch {
	case p.Large || !p.Small:
	case nearly:
		p.Large, p.Size = true, w.MTU-synShort
	default:
		p.Size = largest(w)
	}
	return p
}

// largest looks for a size that passes where the MTU's does not.
func largest(w facts.Way) (size int) {
	sizes := []int{1400, 1350, 1280, 1000, 576}
	passed := make([]bool, len(sizes))
	var wg sync.WaitGroup
	for i, s := range sizes {
		if s < w.MTU {
			wg.Go(func() { passed[i] = carried(w.From, w.Inner, s) })
		}
	}
	wg.Wait()
	if i := slices.Index(passed, true); i >= 0 {
		size = sizes[i]
	}
	return size
}

// synShort is by how much the largest SYN with data is smaller than the MTU:
// the kernel keeps room for all options that a segment could have.
const synShort = 20

// carried asks for a connection with a SYN that carries data (RFC 7413), for a
// packet of a size: one that is answered however often it is sent. What
// is sent again carries none, and comes after a second.
func carried(from, to netip.Addr, size int) bool {
	family, header := unix.AF_INET6, 80
	var local, remote unix.Sockaddr = &unix.SockaddrInet6{Addr: from.As16()}, &unix.SockaddrInet6{Addr: to.As16(), Port: probePort}
	if to.Is4() {
		family, header = unix.AF_INET, 60
		local, remote = &unix.SockaddrInet4{Addr: from.As4()}, &unix.SockaddrInet4{Addr: to.As4(), Port: probePort}
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_FASTOPEN_NO_COOKIE, 1) != nil || unix.Bind(fd, local) != nil {
		return false
	}
	err = unix.Sendto(fd, make([]byte, max(size-header, 0)), unix.MSG_FASTOPEN|unix.MSG_NOSIGNAL, remote)
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return errors.Is(err, unix.ECONNREFUSED)
	}
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(waits[2].Milliseconds())); err != nil || n == 0 {
		return false
	}
	code, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	return err == nil && unix.Errno(code) == unix.ECONNREFUSED
}

// refused asks for a connection: a small packet, and one in answer.
func refused(from, to netip.Addr) bool {
	for _, wait := range waits {
		d := net.Dialer{Timeout: wait}
		if from.IsValid() {
			d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
		}
		c, err := d.Dial("tcp", netip.AddrPortFrom(to, probePort).String())
		if err == nil {
			c.Close()
			return true
		}
		if errors.Is(err, unix.ECONNREFUSED) {
			return true
		}
	}
	return false
}

// answered sends packets of a size that nobody may fragment. carried asks
// beside it, so it need not wait for long.
func answered(from, to netip.Addr, size int) bool {
	header, level, option, value := 28, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE
	if to.Is6() {
		header, level, option, value = 48, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE
	}
	c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, probePort)))
	if err != nil {
		return false
	}
	defer c.Close()
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), level, option, value) })
	}
	for _, wait := range waits[:2] {
		_, err := c.Write(make([]byte, max(size-header, 0)))
		if err == nil {
			_ = c.SetReadDeadline(time.Now().Add(wait))
			_, err = c.Read(make([]byte, 1))
		}
		if err == nil || errors.Is(err, unix.ECONNREFUSED) {
			return true
		}
	}
	return false
}
