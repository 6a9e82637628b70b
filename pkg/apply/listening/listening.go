// Package listening says on which ports programs of this node receive. Input
// is the network namespace of the calling thread; output is every TCP
// listener and every UDP socket without a peer. It refuses to say whose they
// are: that needs rights over other processes.
package listening

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/cluster/service"
)

// Socket is where somebody receives; an unspecified address is any of the
// node's.
type Socket struct {
	Proto service.Protocol
	At    netip.AddrPort
	// Waiting are the TCP connections that nobody has accepted yet.
	Waiting uint32
}

// Messages of linux/inet_diag.h and sock_diag.h.
const (
	diagByFamily = 20
	requestSize  = 56
	tcpListen    = 10
	tcpClose     = 7 // a UDP socket without a peer
)

// Sockets lists them.
func Sockets() (list []Socket, err error) {
	conn, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("open socket for socket diagnosis: %w", err)
	}
	defer conn.Close()
	var errs []error
	for proto, state := range map[service.Protocol]uint32{service.TCP: tcpListen, service.UDP: tcpClose} {
		for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
			request := make([]byte, requestSize)
			request[0], request[1] = family, byte(proto)
			binary.NativeEndian.PutUint32(request[4:], 1<<state)
			answers, err := conn.Execute(netlink.Message{
				Header: netlink.Header{Type: diagByFamily, Flags: netlink.Request | netlink.Dump}, Data: request,
			})
			if err != nil {
				errs = append(errs, fmt.Errorf("list %s sockets: %w", proto, err))
			}
			for _, a := range answers {
				if s, ok := parse(proto, a.Data); ok {
					list = append(list, s)
				}
			}
		}
	}
	return list, errors.Join(errs...)
}

// Stuck lists them too, and keeps Waiting only where nobody accepts for a while:
// a connection always waits for a moment.
func Stuck(while time.Duration) ([]Socket, error) {
	list, err := Sockets()
	waits := func(s Socket) bool { return s.Waiting > 0 }
	if err != nil || !slices.ContainsFunc(list, waits) {
		return list, err
	}
	time.Sleep(while)
	later, err := Sockets()
	for i, s := range later {
		if !slices.ContainsFunc(list, func(before Socket) bool {
			return before.Proto == s.Proto && before.At == s.At && waits(before) && before.Waiting <= s.Waiting
		}) {
			later[i].Waiting = 0
		}
	}
	return later, err
}

// parse reads an inet_diag_msg: family, three bytes, source and destination
// port, source address; and of a listener, the length of its queue.
func parse(proto service.Protocol, b []byte) (s Socket, ok bool) {
	if len(b) < 60 {
		return s, false
	}
	size := 16
	if b[0] == unix.AF_INET {
		size = 4
	}
	addr, ok := netip.AddrFromSlice(b[8 : 8+size])
	s = Socket{Proto: proto, At: netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(b[4:]))}
	if proto == service.TCP {
		s.Waiting = binary.NativeEndian.Uint32(b[56:])
	}
	return s, ok
}
