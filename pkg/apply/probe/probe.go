// Package probe sends packets of its own to learn what only packets tell. In:
// addresses of this node and of a peer inside the overlay; out: a verdict. It
// refuses to guess: without an answer there is none.
package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Verdict is what a probe found out.
type Verdict int

// Unknown is said also of a peer that answers nothing at all.
const (
	Unknown Verdict = iota
	Works
	Faulty
)

const (
	// port is where traceroute begins: nobody listens there, and firewalls know it.
	port = 33434
	// rounds and wait bound a probe to three seconds; a peer answers more
	// than one such packet a second only for a while (icmp_ratelimit).
	rounds = 3
	wait   = 500 * time.Millisecond
)

// Checksum finds out whether checksums that this node leaves to its network
// card arrive right when they are those of encapsulated packets. Some drivers
// promise that and do not keep it; then the peer's kernel drops every packet
// of a connection without a word, but not the ping that an administrator
// tries. So two packets are sent that differ in nothing else: one with its
// checksum left to the device, as all of pods are, and one whose checksum the
// CPU filled in. To a port where nobody listens, a peer answers that. Where
// only the second kind is answered, the card is at fault.
type Checksum struct{ offloaded, software *net.UDPConn }

// NewChecksum opens the sockets in the calling thread's network namespace. From
// is this node's address on the overlay device, to that of a peer behind it.
func NewChecksum(from, to netip.Addr) (*Checksum, error) {
	dial := func() (*net.UDPConn, error) {
		return net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, port)))
	}
	a, err := dial()
	if err != nil {
		return nil, fmt.Errorf("open checksum probe to %s: %w", to, err)
	}
	b, err := dial()
	if err != nil {
		a.Close()
		return nil, fmt.Errorf("open checksum probe to %s: %w", to, err)
	}
	return &Checksum{offloaded: a, software: b}, nil
}

// Run asks, and closes the sockets.
func (c *Checksum) Run(ctx context.Context) Verdict {
	defer c.Close()
	defer context.AfterFunc(ctx, c.Close)()
	return judge(func(software bool) bool {
		if software {
			return answered(c.software, sendSummed)
		}
		return answered(c.offloaded, send)
	})
}

// Close ends a probe, also one that runs.
func (c *Checksum) Close() {
	c.offloaded.Close()
	c.software.Close()
}

// judge asks by turns, because packets get lost: one answer acquits, and only
// silence in every round, beside an answer in every round, condemns.
func judge(ask func(software bool) (answered bool)) Verdict {
	for range rounds {
		if ask(false) {
			return Works
		}
		if !ask(true) {
			return Unknown
		}
	}
	return Faulty
}

func send(c *net.UDPConn) error {
	_, err := c.Write([]byte("poplin"))
	return err
}

// sendSummed sends a packet in two parts: what the kernel puts together from
// parts, it sums up itself.
func sendSummed(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	cork := func(on int) (err error) {
		errControl := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_CORK, on) })
		return errors.Join(errControl, err)
	}
	return errors.Join(cork(1), send(c), cork(0))
}

// answered sends and waits. An answer to an earlier packet is as good.
func answered(c *net.UDPConn, send func(*net.UDPConn) error) bool {
	err := send(c)
	if err == nil {
		_ = c.SetReadDeadline(time.Now().Add(wait))
		_, err = c.Read(make([]byte, 1))
	}
	return err == nil || errors.Is(err, unix.ECONNREFUSED)
}
