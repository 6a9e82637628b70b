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

// Echo finds out whether packets get to a peer and back. A peer's kernel says
// that nobody listens at the port: no program has to answer, and none has to
// run there.
type Echo struct{ conn *net.UDPConn }

// NewEcho opens the socket in the calling thread's network namespace. An error
// is this node's own: its kernel has no way there.
func NewEcho(from, to netip.Addr) (*Echo, error) {
	conn, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, port)))
	if err != nil {
		return nil, fmt.Errorf("send to %s: %w", to, err)
	}
	return &Echo{conn}, nil
}

// Run asks twice at most, and closes the socket. It returns an error where this
// node did not let the packet go, false where nobody answered.
func (e *Echo) Run(ctx context.Context) (bool, error) {
	defer e.conn.Close()
	defer context.AfterFunc(ctx, func() { e.conn.Close() })()
	for range 2 {
		if err := send(e.conn); err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			return false, fmt.Errorf("send to %s: %w", e.conn.RemoteAddr(), err)
		} else if err != nil {
			return true, nil // an answer to the packet before
		}
		_ = e.conn.SetReadDeadline(time.Now().Add(wait))
		if _, err := e.conn.Read(make([]byte, 1)); err == nil || errors.Is(err, unix.ECONNREFUSED) {
			return true, nil
		}
	}
	return false, nil
}
