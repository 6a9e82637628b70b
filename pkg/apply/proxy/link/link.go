// Package link keeps connections to one address for reuse. Inputs are an
// address and requests for a connection; outputs are connections that were
// open and silent when they were handed out, and an exchange on them that
// holds no memory while it waits. It refuses to hand out a connection on which
// something came that nobody had asked for.
package link

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// Link is a connection.
type Link struct {
	net.Conn
	raw   syscall.RawConn
	reads Deadline
	since time.Time // idle

	// What advance works on: bytes to send first, and where to read into.
	advancing func(fd uintptr) bool
	out       []byte
	in        *Buffer
	err       error
	peeking   func(fd uintptr) bool
	silent    bool

	stall   time.Duration
	bounded bool // a write deadline stands

	// Extra is what a user keeps with a connection.
	Extra any
}

// ErrStale says that a connection was closed, or spoke unasked, before it was
// used: nothing was sent.
var ErrStale = errors.New("the connection was closed while it was idle")

func newLink(conn net.Conn) (*Link, error) {
	l := &Link{Conn: conn}
	l.advancing = l.advance
	l.peeking = func(fd uintptr) bool { l.silent = quiet(fd); return true }
	var err error
	if l.raw, err = conn.(syscall.Conn).SyscallConn(); err != nil {
		conn.Close()
		return nil, err
	}
	return l, nil
}

// Quiet reports whether an idle connection is open and silent: the end of the
// stream, or bytes nobody asked for, make it useless.
func (l *Link) Quiet() bool {
	l.silent = false
	return l.raw.Read(l.peeking) == nil && l.silent
}

func quiet(fd uintptr) bool {
	var b [1]byte
	_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return err == syscall.EAGAIN
}

// Silence bounds how long the other end may say nothing from now on; 0 is for
// ever.
func (l *Link) Silence(now time.Time, d time.Duration) { l.reads.Move(l.Conn, now, d) }

// Stall bounds how long it may take nothing of what is written; 0 is for ever.
func (l *Link) Stall(d time.Duration) {
	if l.stall = d; l.bounded {
		l.bounded = false
		_ = l.SetWriteDeadline(time.Time{}) // what fails is the next write
	}
}

// Write sends more of a message.
func (l *Link) Write(p []byte) (int, error) {
	if l.stall > 0 {
		l.bounded = true
		_ = l.SetWriteDeadline(time.Now().Add(l.stall)) // what fails is the write
	}
	return l.Conn.Write(p)
}

// Interrupt ends an Ask or a Fill that waits, from another goroutine.
func (l *Link) Interrupt() { _ = l.SetReadDeadline(time.Unix(1, 0)) }

// Ask sends a message, waits for what comes back, and reads it into a new
// buffer: while nothing comes, none is held. ErrStale is before anything was
// sent.
func (l *Link) Ask(out []byte) (*Buffer, error) {
	l.out = out
	in, err := l.fill(nil)
	rest := l.out
	if l.out = nil; !errors.Is(err, errShort) {
		return in, err
	}
	if _, err := l.Write(rest); err != nil {
		return nil, err
	}
	return l.fill(nil)
}

// Fill reads more into a buffer, or into a new one where in is nil.
func (l *Link) Fill(in *Buffer) (*Buffer, error) { return l.fill(in) }

func (l *Link) fill(in *Buffer) (*Buffer, error) {
	l.in, l.err = in, nil
	err := l.raw.Read(l.advancing)
	in, l.in = l.in, nil
	if err == nil {
		err = l.err
	}
	return in, err
}

// errShort says that the kernel took a part of what was to be sent.
var errShort = errors.New("not all was sent")

// advance is called before the first wait for the connection and after each.
// What comes after its first call is not missed: so the question can be sent
// in it, and nobody tries to read an answer that cannot be there yet.
func (l *Link) advance(fd uintptr) bool {
	if l.out != nil {
		if !quiet(fd) {
			l.err = ErrStale
			return true
		}
		n, err := ignoringEINTR(func() (int, error) { return syscall.Write(int(fd), l.out) })
		switch {
		case err == nil && n == len(l.out):
			l.out = nil
			return false
		case err == nil, errors.Is(err, syscall.EAGAIN):
			l.out, l.err = l.out[max(n, 0):], errShort
		default:
			l.err = os.NewSyscallError("write", err)
		}
		return true
	}
	given := l.in
	if given == nil {
		l.in = NewBuffer()
	}
	n, err := ignoringEINTR(func() (int, error) { return syscall.Read(int(fd), l.in.Space()) })
	switch {
	case err == nil && n > 0:
		l.in.Added(n)
		return true
	case err == nil:
		l.err = io.EOF
	case errors.Is(err, syscall.EAGAIN):
	default:
		l.err = os.NewSyscallError("read", err)
	}
	if given == nil {
		l.in.Free()
		l.in = nil
	}
	return l.err != nil
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		if n, err := f(); !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}

// Deadline is a read deadline that is moved on, but not for every read: what
// it allows is up to an eighth more than was asked for.
type Deadline struct{ at int64 } // Unix nanoseconds; 0 is none

// Move allows c to be silent for d from now on; 0 is for ever.
func (l *Deadline) Move(c net.Conn, now time.Time, d time.Duration) {
	until, slack := now.UnixNano()+int64(d), int64(d/8)
	switch {
	case d == 0 && l.at == 0, d > 0 && l.at >= until && l.at <= until+slack:
		return
	case d == 0:
		l.at = 0
		_ = c.SetReadDeadline(time.Time{}) // what fails is the next read
	default:
		l.at = until + slack
		_ = c.SetReadDeadline(time.Unix(0, l.at))
	}
}
