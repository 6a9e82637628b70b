package upstream

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/header"
	"poplin.dev/poplin/pkg/apply/proxy/link"
)

// simple is a transport for most requests: HTTP/1.1, no body, safe to repeat.
// Such a request needs no second goroutine, as there is nothing to send while
// the answer is read; http.Transport has two for each connection, and their
// hand-overs are half of what it costs. Everything else goes to
// http.Transport.
type simple struct{ pool *link.Pool }

// codec reads and writes messages on a connection, and stays with it.
type codec struct {
	*link.Link
	out bytes.Buffer
	// in is the beginning of the answer, until it was read.
	in *link.Buffer
	// limited bounds an answer's header; bodies have no bound.
	limited io.LimitedReader
	br      *bufio.Reader
}

func codecOf(l *link.Link) *codec {
	if c, ok := l.Extra.(*codec); ok {
		return c
	}
	// The deadlines are the context's: those that the other engine left do
	// not count here.
	c := &codec{Link: l}
	c.limited.R = c
	c.br = bufio.NewReader(&c.limited)
	l.Extra = c
	return c
}

// Read reads the answer: what came first, and then from the connection.
func (c *codec) Read(p []byte) (int, error) {
	if c.in == nil {
		return c.Link.Read(p)
	}
	n := copy(p, c.in.Bytes())
	if c.in.Drop(n); len(c.in.Bytes()) == 0 {
		c.free()
	}
	return n, nil
}

func (c *codec) free() {
	if c.in != nil {
		c.in.Free()
		c.in = nil
	}
}

// RoundTrip tries again on a fresh connection where an old one turns out to be
// closed: the request is safe to repeat.
func (s simple) RoundTrip(req *http.Request, own []header.Field, early func(int, http.Header)) (*http.Response, error) {
	for {
		l, reused, err := s.get(req.Context())
		if err != nil {
			return nil, err
		}
		l.Silence(time.Now(), 0)
		l.Stall(0)
		resp, err := s.exchange(codecOf(l), req, own, early)
		if errors.Is(err, link.ErrStale) && reused && req.Context().Err() == nil {
			continue
		}
		return resp, err
	}
}

func (s simple) get(ctx context.Context) (l *link.Link, reused bool, err error) {
	if l := s.pool.Idle(time.Now()); l != nil {
		return l, true, nil
	}
	if l, err = s.pool.Dial(ctx, connectTime(ctx)); err != nil {
		return nil, false, dialError{err}
	}
	return l, false, nil
}

// exchange sends the request and reads the answer's header. The connection is
// the body's then, which gives it back.
func (s simple) exchange(c *codec, req *http.Request, own []header.Field, early func(int, http.Header)) (*http.Response, error) {
	stop := context.AfterFunc(req.Context(), func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	resp, err := c.talk(req, own, early)
	if err != nil {
		stop()
		c.free()
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

func (c *codec) talk(req *http.Request, own []header.Field, early func(int, http.Header)) (*http.Response, error) {
	c.out.Reset()
	if err := writeRequest(&c.out, req, own); err != nil {
		return nil, err
	}
	var err error
	if c.in, err = c.Ask(c.out.Bytes()); err != nil {
		// Nothing was answered: an old connection had been closed.
		return nil, errors.Join(link.ErrStale, err)
	}
	c.limited.N = MaxAnswerHeader
	for {
		resp, err := http.ReadResponse(c.br, req)
		switch {
		case err != nil && c.limited.N <= 0:
			return nil, fmt.Errorf("the answer's header is larger than %d bytes", MaxAnswerHeader)
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
func writeRequest(w *bytes.Buffer, req *http.Request, own []header.Field) error {
	uri := req.URL.RequestURI()
	for _, s := range []string{req.Method, uri, req.Host} {
		if strings.ContainsAny(s, " \r\n\x00") {
			return fmt.Errorf("write request: %q cannot stand in its first lines", s)
		}
	}
	for _, s := range []string{req.Method, " ", uri, " HTTP/1.1\r\nHost: ", req.Host, "\r\n"} {
		w.WriteString(s)
	}
	for name, values := range req.Header {
		for _, v := range values {
			// ReverseProxy sets an empty User-Agent where there is none.
			if v == "" && name == "User-Agent" {
				continue
			}
			if !writeField(w, name, v) {
				return fmt.Errorf("write request: header %q cannot be written", name)
			}
		}
	}
	for _, f := range own {
		if !writeField(w, f.Name, f.Value) {
			return fmt.Errorf("write request: header %q cannot be written", f.Name)
		}
	}
	w.WriteString("\r\n")
	return nil
}

// writeField reports false where a field would be more than one line.
func writeField(w *bytes.Buffer, name, value string) bool {
	if strings.ContainsAny(value, "\r\n\x00") || strings.ContainsAny(name, ": \r\n\x00") {
		return false
	}
	for _, s := range [...]string{name, ": ", value, "\r\n"} {
		w.WriteString(s)
	}
	return true
}

// simpleBody gives its connection back when it was read to its end.
type simpleBody struct {
	io.ReadCloser
	s    simple
	c    *codec
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
	if b.stop() && whole && b.keep && c.br.Buffered() == 0 && c.in == nil {
		b.s.pool.Keep(c.Link, time.Now())
	} else {
		c.free()
		c.Close()
	}
}
