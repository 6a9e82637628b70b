package h1

import (
	"errors"
	"os"
	"sync/atomic"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/engine"
	"poplin.dev/poplin/pkg/apply/proxy/header"
	"poplin.dev/poplin/pkg/apply/proxy/link"
	"poplin.dev/poplin/pkg/apply/proxy/wire"
)

// upload sends a request's body on while the answer is waited for, so that
// an endpoint may answer before it has all of it.
type upload struct {
	x     *exchange
	done  chan struct{} // nil until it starts
	whole bool          // all of it was sent; valid once done
	last  atomic.Int64  // when something moved, in Unix nanoseconds
}

func (u *upload) start(l *link.Link) {
	u.done = make(chan struct{})
	u.last.Store(time.Now().UnixNano())
	go func() {
		defer close(u.done)
		if u.whole = u.run(l); u.x.reason.Load() != uncut {
			l.Interrupt()
		}
	}()
}

// moved reports whether something has within d.
func (u *upload) moved(d time.Duration) bool {
	return time.Now().UnixNano()-u.last.Load() < int64(d)
}

// sent reports whether the endpoint has the whole body.
func (u *upload) sent() bool {
	select {
	case <-u.done:
		return u.whole
	default:
		return false
	}
}

// end stops it where it is, and reports whether that is the body's end. What
// is left of the body stays on the client's connection.
func (u *upload) end(l *link.Link) bool {
	if u.done == nil {
		return true
	}
	if !u.sent() {
		_ = u.x.c.SetReadDeadline(time.Unix(1, 0)) // so that its read ends,
		l.Close()                                  // or its write
		<-u.done
	}
	return u.whole
}

func (u *upload) run(l *link.Link) bool {
	x := u.x
	x.body.Begin(x.req.Length, x.req.Chunked)
	limit := x.route.BodyLimit
	buf := link.NewBuffer()
	defer buf.Free()
	for !x.body.Done() {
		if err := x.c.readBody(buf); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				x.cut(bodyLate)
			} else {
				x.cut(clientLeft)
			}
			return false
		}
		n, used, err := x.body.Take(buf.Bytes())
		if used < len(buf.Bytes()) {
			x.c.unread(buf.Bytes()[used:])
		}
		x.record.BytesIn += int64(n)
		switch {
		case err != nil:
			x.cut(bodyBad)
			return false
		case limit > 0 && x.record.BytesIn > limit:
			x.cut(bodyLarge)
			return false
		}
		buf.Cut(n)
		if x.req.Chunked && !chunk(buf, &x.body) {
			x.cut(bodyBad)
			return false
		}
		if len(buf.Bytes()) > 0 {
			if _, err := l.Write(buf.Bytes()); engine.Late(err) {
				x.cut(bodyStalled)
				return false
			} else if err != nil {
				return false // the answer may be there all the same
			}
		}
		buf.Reset()
		u.last.Store(time.Now().UnixNano())
	}
	return true
}

// readBody reads some of a body, first what came with the head.
func (c *conn) readBody(buf *link.Buffer) error {
	if c.r < c.w {
		n := copy(buf.Space(), c.buf[c.r:c.w])
		c.r += n
		buf.Added(n)
		return nil
	}
	c.r, c.w = 0, 0
	c.reads.Move(c.Conn, time.Now(), c.s.BodyTime)
	n, err := c.Conn.Read(buf.Space())
	buf.Added(n)
	if n > 0 {
		return nil
	}
	return err
}

// chunk makes the data in buf a chunk, and adds the last one and the trailer
// where the body is done. It reports false for a trailer that is none.
func chunk(buf *link.Buffer, body *wire.Body) bool {
	if n := len(buf.Bytes()); n > 0 {
		var line [18]byte
		buf.Prepend(wire.AppendSize(line[:0], n))
		buf.Append([]byte("\r\n"))
	}
	if !body.Done() {
		return true
	}
	trailer, err := body.Trailer()
	if err != nil {
		return false
	}
	b := append(make([]byte, 0, 64), "0\r\n"...)
	for _, f := range trailer {
		if f.Role == header.EndToEnd {
			b = wire.AppendField(b, f.Name, f.Value)
		}
	}
	buf.Append(append(b, "\r\n"...))
	return true
}
