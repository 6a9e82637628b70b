package apply

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// socket speaks rtnetlink in the network namespace it was opened in, whatever
// namespace its user is in later.
type socket struct {
	fd  int
	seq uint32
	in  []byte
}

// maxDatagram is the most the kernel puts into one datagram.
const maxDatagram = 32 << 10

func open() (*socket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	// The kernel's own words for an error (4.12), without the request echoed
	// (4.3). An older kernel gives the errno alone, which will do.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_EXT_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	return &socket{fd: fd, in: make([]byte, maxDatagram)}, nil
}

func (s *socket) close() { unix.Close(s.fd) }

// step is a message and what it is for, as errors say it.
type step struct {
	what string
	message
}

// do sends all steps at once. The kernel works through them in order before
// send returns, and goes on after a failure. Returned are its answers other
// than acknowledgements, and the first failure.
func (s *socket) do(steps ...step) (answers [][]byte, err error) {
	first := s.seq + 1
	var out []byte
	for i := range steps {
		s.seq++
		if i == len(steps)-1 {
			// Failures are always told and success where asked for: the
			// acknowledgement of the last message ends the answers.
			steps[i].flags |= unix.NLM_F_ACK
		}
		out = steps[i].append(out, s.seq)
	}
	if err := unix.Sendto(s.fd, out, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("send to netlink: %w", err)
	}
	var failed error
	for last := false; !last; {
		datagram, err := s.receive()
		if err != nil {
			return nil, err
		}
		for len(datagram) >= unix.SizeofNlMsghdr && !last {
			var m []byte
			m, datagram = cut(datagram)
			seq, kind := native.Uint32(m[8:]), native.Uint16(m[4:])
			if kind != unix.NLMSG_ERROR && kind != unix.NLMSG_DONE {
				answers = append(answers, bytes.Clone(m[unix.SizeofNlMsghdr:]))
				continue
			}
			last = seq == s.seq
			if err := failure(m); err != nil && failed == nil && seq-first < uint32(len(steps)) {
				failed = fmt.Errorf("%s: %w", steps[seq-first].what, err)
			}
		}
	}
	return answers, failed
}

// receive is one datagram, until the next call.
func (s *socket) receive() ([]byte, error) {
	for {
		n, err := unix.Read(s.fd, s.in)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return nil, fmt.Errorf("receive from netlink: %w", err)
		default:
			return s.in[:n], nil
		}
	}
}

// cut takes the first message off a datagram, which holds a header at least.
func cut(datagram []byte) (m, rest []byte) {
	size := int(native.Uint32(datagram))
	size = min(max(size, unix.SizeofNlMsghdr), len(datagram))
	return datagram[:size], datagram[min(align(size), len(datagram)):]
}

// failure reads the errno of an error message (struct nlmsgerr), and the
// kernel's explanation if there is one.
func failure(m []byte) error {
	body := m[unix.SizeofNlMsghdr:]
	if len(body) < 4 || native.Uint32(body) == 0 {
		return nil
	}
	errno := unix.Errno(-int32(native.Uint32(body)))
	const explained = 4 + unix.SizeofNlMsghdr // errno and the request's header
	if native.Uint16(m[6:])&unix.NLM_F_ACK_TLVS == 0 || len(body) < explained {
		return errno
	}
	text := attrs(body[explained:])[unix.NLMSGERR_ATTR_MSG]
	if len(text) == 0 {
		return errno
	}
	return fmt.Errorf("%w (%s)", errno, unix.ByteSliceToString(text))
}
