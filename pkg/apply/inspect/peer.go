package inspect

import (
	"errors"
	"net"
	"net/netip"
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
// only (icmp_ratelimit): together they last longer than that.
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
	if w.Inner.IsValid() {
		wg.Go(func() { p.Small = refused(w.From, w.Inner) })
		wg.Go(func() { p.Large = answered(w.From, w.Inner, w.MTU) })
	}
	wg.Wait()
	if p.Small && !p.Large {
		for _, size := range []int{1400, 1280, 1000, 576} {
			if size < w.MTU && answered(w.From, w.Inner, size) {
				p.Size = size
				break
			}
		}
	}
	return p
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

// answered sends packets of a size that nobody may fragment.
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
	for _, wait := range waits {
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
