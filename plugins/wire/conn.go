package wire

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Conn is a socket in the network namespace it was opened in.
type Conn struct {
	fd  int
	seq uint32
	in  []byte
}

const (
	// maxDatagram is the most the kernel puts into one datagram.
	maxDatagram = 64 << 10
	// patience is far longer than any answer takes; without an end, a kernel
	// that does not answer would stop the pod without a word.
	patience = 10 * time.Second
	// sendBuffer holds the largest batch: nf_tables takes a transaction as one
	// datagram.
	sendBuffer = 4 << 20
)

// Open opens a socket of a protocol such as unix.NETLINK_ROUTE.
func Open(protocol int) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket of protocol %d: %w", protocol, err)
	}
	// The kernel's own words for an error (4.12), without the request echoed
	// (4.3). An older kernel gives the number alone, which will do.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	wait := unix.NsecToTimeval(int64(patience))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, sendBuffer),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait),
		unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}))
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	return &Conn{fd: fd, in: make([]byte, maxDatagram)}, nil
}

// Close closes the socket.
func (c *Conn) Close() { unix.Close(c.fd) }

// Port is the socket's address: events that this socket causes bear it.
func (c *Conn) Port() (uint32, error) {
	addr, err := unix.Getsockname(c.fd)
	own, ok := addr.(*unix.SockaddrNetlink)
	if err != nil || !ok {
		return 0, fmt.Errorf("find netlink socket's address: %T, %w", addr, err)
	}
	return own.Pid, nil
}

// Do sends all messages as one datagram, through which the kernel works in
// order, whatever fails, and waits for the last that has NLM_F_ACK or asks for
// a list. Returned are the answers and the first failure of any.
func (c *Conn) Do(messages ...Message) (answers [][]byte, err error) {
	first := c.seq + 1
	var out []byte
	var last uint32
	for _, m := range messages {
		c.seq++
		if m.Flags&unix.NLM_F_ACK != 0 || m.Flags&unix.NLM_F_DUMP == unix.NLM_F_DUMP {
			last = c.seq
		}
		out = m.append(out, c.seq)
	}
	if err := unix.Sendto(c.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send %d bytes to netlink: %w", len(out), err)
	}
	var failed error
	for {
		datagram, err := c.receive()
		if err != nil {
			return nil, errors.Join(failed, err)
		}
		for len(datagram) >= unix.SizeofNlMsghdr {
			var m []byte
			m, datagram = cut(datagram)
			seq, kind := native.Uint32(m[8:]), native.Uint16(m[4:])
			switch {
			case seq < first || seq > c.seq: // left over from a request that failed
				continue
			case kind != unix.NLMSG_ERROR && kind != unix.NLMSG_DONE:
				answers = append(answers, bytes.Clone(m[unix.SizeofNlMsghdr:]))
				continue
			}
			if err := failure(m); err != nil && failed == nil {
				if failed = err; messages[seq-first].What != "" {
					failed = fmt.Errorf("%s: %w", messages[seq-first].What, err)
				}
			}
			// An error that names a batch's first message is about all of it.
			if seq == last || seq == first && failed != nil {
				return answers, failed
			}
		}
	}
}

func (c *Conn) receive() ([]byte, error) {
	for {
		n, err := unix.Read(c.fd, c.in)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return nil, fmt.Errorf("receive from netlink: no answer in %v", patience)
		case err != nil:
			return nil, fmt.Errorf("receive from netlink: %w", err)
		default:
			return c.in[:n], nil
		}
	}
}

// cut takes the first message off a datagram, which holds a header at least.
func cut(datagram []byte) (m, rest []byte) {
	size := min(max(int(native.Uint32(datagram)), unix.SizeofNlMsghdr), len(datagram))
	return datagram[:size], datagram[min(align(size), len(datagram)):]
}

// failure reads the number of an error message (struct nlmsgerr), and the
// kernel's explanation if there is one.
func failure(m []byte) error {
	body := m[unix.SizeofNlMsghdr:]
	if len(body) < 4 || native.Uint32(body) == 0 {
		return nil
	}
	errno := unix.Errno(-int32(native.Uint32(body)))
	const explained = 4 + unix.SizeofNlMsghdr // number and the request's header
	if native.Uint16(m[6:])&unix.NLM_F_ACK_TLVS == 0 || len(body) < explained {
		return errno
	}
	if text := Find(body[explained:], unix.NLMSGERR_ATTR_MSG); len(text) > 0 {
		return fmt.Errorf("%w (%s)", errno, unix.ByteSliceToString(text))
	}
	return errno
}
