// Package capture watches the wire: every IP packet that passes any device of
// a network namespace, as addresses, protocol and ports of its outermost
// headers. Input is the namespace's path; output is a count per kind of
// packet. It refuses to look inside.
package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/thread"
)

// Packet is the outermost header of an IP packet. Ports are 0 where the
// protocol has none.
type Packet struct {
	Src, Dst netip.AddrPort
	// Protocol is the IANA number: 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6.
	Protocol uint8
}

func (p Packet) String() string {
	return fmt.Sprintf("%s -> %s protocol %d", p.Src, p.Dst, p.Protocol)
}

// Capture runs until Stop.
type Capture struct {
	fd   int
	done chan error

	mu   sync.Mutex // guards seen
	seen map[Packet]int
}

// Start begins to watch the network namespace that path names.
func Start(path string) (*Capture, error) {
	c := &Capture{done: make(chan error, 1), seen: map[Packet]int{}}
	if err := thread.In(path, c.open); err != nil {
		return nil, fmt.Errorf("capture in %s: %w", path, err)
	}
	go func() { c.done <- c.read() }()
	return c, nil
}

// open makes the packet socket; a socket stays in the namespace it was made in.
func (c *Capture) open() (err error) {
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, all); err != nil {
		return err
	}
	// A wake-up now and then, so that Stop is noticed.
	tick := unix.NsecToTimeval(int64(50 * time.Millisecond))
	return errors.Join(
		unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick),
		unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
	)
}

func (c *Capture) read() error {
	buf := make([]byte, 256)
	for {
		n, _, err := unix.Recvfrom(c.fd, buf, 0)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			if c.stopped() {
				return nil
			}
			continue
		case err != nil:
			return err
		}
		if p, ok := parse(buf[:n]); ok {
			c.mu.Lock()
			if c.seen != nil {
				c.seen[p]++
			}
			c.mu.Unlock()
		}
		if c.stopped() {
			return nil
		}
	}
}

func (c *Capture) stopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen == nil
}

// Stop ends the capture and returns how often each packet passed. A packet
// that crosses several devices counts once on each.
func (c *Capture) Stop() (map[Packet]int, error) {
	var stats *unix.TpacketStats
	c.mu.Lock()
	seen := maps.Clone(c.seen)
	c.seen = nil
	stats, statErr := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	c.mu.Unlock()
	err := <-c.done
	unix.Close(c.fd)
	if err == nil && statErr == nil && stats.Drops > 0 {
		err = fmt.Errorf("capture: %d packets were not looked at", stats.Drops)
	}
	return seen, errors.Join(err, statErr)
}

// parse reads the outermost IP header and the ports behind it.
func parse(b []byte) (Packet, bool) {
	var p Packet
	var src, dst netip.Addr
	var rest []byte
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		p.Protocol = b[9]
		if n := int(b[0]&15) * 4; n <= len(b) {
			rest = b[n:]
		}
	case len(b) >= 40 && b[0]>>4 == 6:
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		p.Protocol, rest = b[6], b[40:]
	default:
		return p, false // ARP and the like
	}
	var sport, dport uint16
	if (p.Protocol == unix.IPPROTO_TCP || p.Protocol == unix.IPPROTO_UDP) && len(rest) >= 4 {
		sport, dport = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
	}
	p.Src, p.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	return p, true
}
