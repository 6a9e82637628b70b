package wire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Event is a message that the kernel sends to a multicast group.
type Event struct {
	// Port is the address of the socket that caused it.
	Port uint32
	Kind uint16
	Body []byte
	// Lost says that there were more than the socket could hold: anything may
	// have happened.
	Lost bool
}

// Group is a multicast group's events, from when it was joined in the network
// namespace it was joined in.
type Group struct{ socket *os.File }

// Join begins to gather a group's events.
func Join(protocol, group int) (*Group, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket of protocol %d: %w", protocol, err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("join netlink group %d of protocol %d: %w", group, protocol, err)
	}
	return &Group{f}, nil
}

// Run hands over events until ctx ends, and then leaves the group.
func (g *Group) Run(ctx context.Context, each func(Event)) error {
	defer g.socket.Close()
	defer context.AfterFunc(ctx, func() { _ = g.socket.SetReadDeadline(time.Now()) })()
	in := make([]byte, maxDatagram)
	for {
		n, err := g.socket.Read(in)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			each(Event{Lost: true})
			continue
		case err != nil:
			return fmt.Errorf("receive netlink events: %w", err)
		}
		for rest := in[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			var m []byte
			m, rest = cut(rest)
			each(Event{Port: native.Uint32(m[12:]), Kind: native.Uint16(m[4:]), Body: m[unix.SizeofNlMsghdr:]})
		}
	}
}
