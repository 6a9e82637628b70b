package upstream

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"time"
)

// simple is a transport for most requests: HTTP/1.1, no body, safe to repeat.
// Such a request needs no second goroutine, as there is nothing to send while
// the answer is read; http.Transport has two for each connection, and their
// hand-overs are half of what it costs. Everything else goes to
// http.Transport.
type simple struct {
	address string

	mu   sync.Mutex
	idle []*simpleConn // the latest used last
	// closing keeps nothing for reuse; sweeping says that a timer runs.
	closing, sweeping bool
}

type simpleConn struct {
	net.Conn
	// limited bounds an answer's header; bodies have no bound.
	limited io.LimitedReader
	br      *bufio.Reader
	bw      *bufio.Writer
	since   time.Time // idle

	// raw and peek ask the kernel about an idle connection; silent is its
	// answer.
	raw    syscall.RawConn
	peek   func(fd uintptr) bool
	silent bool
}

// errStale says that a connection had been closed before the request came.
var errStale = errors.New("the connection was closed while it was idle")

// RoundTrip tries again on a fresh connection where an old one turns out to be
// closed: the request is safe to repeat.
func (s *simple) RoundTrip(req *http.Request, early func(int, http.Header)) (*http.Response, error) {
	for {
		c, reused, err := s.get(req.Context())
		if err != nil {
			return nil, err
		}
		resp, err := s.exchange(c, req, early)
		if errors.Is(err, errStale) && reused && req.Context().Err() == nil {
			continue
		}
		return resp, err
	}
}

func (s *simple) get(ctx context.Context) (c *simpleConn, reused bool, err error) {
	for {
		s.mu.Lock()
		n := len(s.idle)
		if n == 0 {
			s.mu.Unlock()
			break
		}
		c := s.idle[n-1]
		s.idle[n-1] = nil
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		if time.Since(c.since) < idleTime && c.quiet() {
			return c, true, nil
		}
		c.Close()
	}
	bounded, cancel := context.WithTimeout(ctx, connectTime(ctx))
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(bounded, "tcp", s.address)
	if err != nil {
		return nil, false, dialError{err}
	}
	c, err = newSimpleConn(conn)
	return c, false, err
}

func newSimpleConn(conn net.Conn) (*simpleConn, error) {
	c := &simpleConn{Conn: conn, bw: bufio.NewWriter(conn)}
	c.limited.R = conn
	c.br = bufio.NewReader(&c.limited)
	var err error
	if c.raw, err = conn.(syscall.Conn).SyscallConn(); err != nil {
		conn.Close()
		return nil, dialError{err}
	}
	c.peek = func(fd uintptr) bool {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		c.silent = err == syscall.EAGAIN
		return true
	}
	return c, nil
}

// quiet reports whether an idle connection is open and silent: the end of the
// stream, or bytes nobody asked for, make it useless.
func (c *simpleConn) quiet() bool {
	c.silent = false
	return c.raw.Read(c.peek) == nil && c.silent
}

func (s *simple) put(c *simpleConn) {
	c.since = time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing || len(s.idle) >= maxIdle {
		c.Close()
		return
	}
	s.idle = append(s.idle, c)
	if !s.sweeping {
		s.sweeping = true
		time.AfterFunc(idleTime, s.sweep)
	}
}

// sweep closes what was idle for too long. The oldest stand first.
func (s *simple) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := 0
	for old < len(s.idle) && time.Since(s.idle[old].since) >= idleTime {
		s.idle[old].Close()
		old++
	}
	s.idle = append(s.idle[:0], s.idle[old:]...)
	clear(s.idle[len(s.idle):cap(s.idle)])
	if s.sweeping = len(s.idle) > 0; s.sweeping {
		time.AfterFunc(idleTime/2, s.sweep)
	}
}

// CloseIdleConnections closes them, and those under way once they are done.
func (s *simple) CloseIdleConnections() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.idle {
		c.Close()
	}
	s.idle, s.closing = nil, true
}

// exchange sends the request and reads the answer's header. The connection is
// the body's then, which gives it back.
func (s *simple) exchange(c *simpleConn, req *http.Request, early func(int, http.Header)) (*http.Response, error) {
	stop := context.AfterFunc(req.Context(), func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	resp, err := c.talk(req, early)
	if err != nil {
		stop()
		c.Close()
		if ctxErr := req.Context().Err(); ctxErr != nil {
			return nil, ctxErr
		}
		return nil, err
	}
	body := &simpleBody{ReadCloser: resp.Body, s: s, c: c, stop: stop, keep: !resp.Close}
	if resp.Body == http.NoBody {
		body.end(true)
	}
	resp.Body = body
	return resp, nil
}

func (c *simpleConn) talk(req *http.Request, early func(int, http.Header)) (*http.Response, error) {
	if err := writeRequest(c.bw, req); err != nil {
		return nil, err
	}
	if err := c.bw.Flush(); err != nil {
		return nil, errors.Join(errStale, err)
	}
	c.limited.N = maxAnswerHeader
	if _, err := c.br.Peek(1); err != nil {
		return nil, errors.Join(errStale, err)
	}
	for {
		resp, err := http.ReadResponse(c.br, req)
		switch {
		case err != nil && c.limited.N <= 0:
			return nil, fmt.Errorf("the answer's header is larger than %d bytes", maxAnswerHeader)
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errors.New("the endpoint switched protocols unasked")
		case resp.StatusCode >= 200:
			c.limited.N = math.MaxInt64
			return resp, nil
		}
		if early != nil && resp.StatusCode != http.StatusContinue {
			early(resp.StatusCode, resp.Header)
		}
	}
}

// writeRequest writes a request without a body.
func writeRequest(w *bufio.Writer, req *http.Request) error {
	uri := req.URL.RequestURI()
	for _, s := range []string{req.Method, uri, req.Host} {
		if strings.ContainsAny(s, " \r\n\x00") {
			return fmt.Errorf("write request: %q cannot stand in its first lines", s)
		}
	}
	for _, s := range []string{req.Method, " ", uri, " HTTP/1.1\r\nHost: ", req.Host, "\r\n"} {
		_, _ = w.WriteString(s) // the last write, and Flush, tell of any failure
	}
	for name, values := range req.Header {
		for _, v := range values {
			// ReverseProxy sets an empty User-Agent where there is none.
			if v == "" && name == "User-Agent" {
				continue
			}
			if strings.ContainsAny(v, "\r\n\x00") || strings.ContainsAny(name, ": \r\n\x00") {
				w.Reset(io.Discard)
				return fmt.Errorf("write request: header %q cannot be written", name)
			}
			for _, s := range []string{name, ": ", v, "\r\n"} {
				_, _ = w.WriteString(s)
			}
		}
	}
	_, err := w.WriteString("\r\n")
	return err
}

// simpleBody gives its connection back when it was read to its end.
type simpleBody struct {
	io.ReadCloser
	s    *simple
	c    *simpleConn
	stop func() bool
	keep bool
}

func (b *simpleBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.end(err == io.EOF)
	}
	return n, err
}

func (b *simpleBody) Close() error {
	b.end(false)
	return nil
}

// end keeps a connection only if nothing came after the answer, and nothing
// has interrupted it.
func (b *simpleBody) end(whole bool) {
	if b.c == nil {
		return
	}
	c := b.c
	b.c = nil
	if b.stop() && whole && b.keep && c.br.Buffered() == 0 {
		b.s.put(c)
	} else {
		c.Close()
	}
}
