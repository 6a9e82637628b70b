package h1

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/engine"
	"poplin.dev/poplin/pkg/apply/proxy/link"
	"poplin.dev/poplin/pkg/apply/proxy/wire"
)

const (
	// smallBuffer is what a connection keeps; nearly all heads fit.
	smallBuffer = 4 << 10
	// A client that is told to leave may still be sending. What it sends is
	// read for a while: a reset would take the answer from it.
	lingerTime  = 500 * time.Millisecond
	lingerBytes = 256 << 10
)

// The states of a connection: a request may have begun only if CloseIdle has
// not decided that none would.
const (
	busy = iota
	idle
	closed
)

// conn is a client's connection.
type conn struct {
	net.Conn
	s      *Server
	ctx    context.Context
	caller engine.Caller
	raw    syscall.RawConn
	state  atomic.Int32
	reads  link.Deadline
	buf    []byte
	r, w   int // buf[r:w] was read and not used yet
	x      exchange

	// link is the endpoint's side while somebody may have to interrupt it.
	mu    sync.Mutex
	link  *link.Link
	since time.Time
}

// serve reports whether the connection is to be handed over.
func (c *conn) serve() bool {
	for first := true; ; first = false {
		text, err := c.head(first)
		if err == nil {
			err = c.x.req.Parse(text)
		}
		if err != nil {
			if bad, ok := errors.AsType[*wire.Error](err); ok {
				c.x.malformed(bad)
			}
			return false
		}
		switch c.x.serve(len(text)) {
		case handOver:
			return true
		case end:
			return false
		case endGently:
			c.linger()
			return false
		}
		if c.x.forget(); c.r == c.w && len(c.buf) > smallBuffer {
			c.buf = make([]byte, smallBuffer)
		}
	}
}

// head reads until a request's head is complete. It stays in the buffer.
func (c *conn) head(first bool) (string, error) {
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	for seen := 0; ; {
		b := c.buf[c.r:c.w]
		n, err := wire.End(b, seen)
		switch {
		case err != nil:
			return "", err
		case n > c.s.HeaderBytes, n == 0 && len(b) >= c.s.HeaderBytes:
			return "", errHeader
		case n > 0:
			return string(b[:n]), nil
		}
		waits := c.s.HeaderTime
		if len(b) == 0 && !first {
			waits = c.s.IdleTime
		}
		if seen == 0 {
			c.reads.Move(c.Conn, time.Now(), waits)
		}
		seen = len(b)
		c.space()
		if seen == 0 {
			c.state.Store(idle)
		}
		n, err = c.Conn.Read(c.buf[c.w:])
		if c.w += n; n == 0 && err != nil {
			return "", err
		}
		if seen == 0 && !c.state.CompareAndSwap(idle, busy) {
			return "", net.ErrClosed
		}
	}
}

var errHeader = &wire.Error{Status: 431, Text: "the request's header is too large"}

// space makes room to read into.
func (c *conn) space() {
	if c.w < len(c.buf) {
		return
	}
	if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
		return
	}
	c.buf = append(c.buf, make([]byte, len(c.buf))...)
}

// unread puts back what readBody read past the end of a body.
func (c *conn) unread(b []byte) {
	if c.r >= len(b) {
		c.r -= len(b) // it was in the buffer before
		return
	}
	c.buf = append(c.buf[:0], b...)
	c.r, c.w = 0, len(b)
	c.buf = c.buf[:cap(c.buf)]
}

// leave ends the connection if no request is under way.
func (c *conn) leave() {
	if c.state.CompareAndSwap(idle, closed) {
		_ = c.SetReadDeadline(time.Unix(1, 0)) // it is closed where it is read
	}
}

// linger ends it so that the client has a chance to read the last answer.
func (c *conn) linger() {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(lingerTime)) // what fails is the next read
	_, _ = io.CopyN(io.Discard, c.Conn, lingerBytes)  // that is all they get
}
