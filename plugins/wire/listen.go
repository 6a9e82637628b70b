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
	Port        uint32
	Kind, Flags uint16
	Body        []byte
	// Lost says that there were more than the socket could hold: anything may
	// have happened.
	Lost bool
}

// Group is the events of multicast groups, from when they were joined in the
// network namespace they were joined in.
type Group struct{ socket *os.File }

// Join begins to gather events of groups.
func Join(protocol int, groups ...int) (*Group, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket of protocol %d: %w", protocol, err)
	}
	f := os.NewFile(uintptr(fd), "netlink")
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for _, group := range groups {
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, group))
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("join netlink groups %v of protocol %d: %w", groups, protocol, err)
	}
	return &Group{f}, nil
}

// Run hands over events until ctx ends, and then leaves the groups.
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
			each(Event{Port: native.Uint32(m[12:]), Kind: native.Uint16(m[4:]), Flags: native.Uint16(m[6:]), Body: m[unix.SizeofNlMsghdr:]})
		}
	}
}
