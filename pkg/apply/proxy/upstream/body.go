package upstream

import (
	"io"
	"net/http"
	"sync/atomic"

	"poplin.dev/poplin/pkg/apply/proxy/header"
	"poplin.dev/poplin/pkg/program/web"
)

// do sends the request to this endpoint and counts it until its answer has
// been read.
func (e *endpoint) do(req *http.Request, a *Ask) (*http.Response, error) {
	req.URL.Host, req.URL.Scheme = a.Endpoint, "http"
	e.load.Add(1)
	resp, err := e.send(req, a)
	if err != nil {
		e.load.Add(-1)
		return nil, err
	}
	if both, ok := resp.Body.(io.ReadWriteCloser); ok {
		// An upgraded connection: what it is after must stay writable.
		resp.Body = &tunnel{ReadWriteCloser: both, counted: counted{of: e}}
	} else {
		resp.Body = &answer{ReadCloser: resp.Body, counted: counted{of: e}}
	}
	return resp, nil
}

func (e *endpoint) send(req *http.Request, a *Ask) (*http.Response, error) {
	protocol := a.Protocol()
	if protocol == web.HTTP && Repeatable(req) && len(req.Header["Expect"]) == 0 {
		return simple{&e.links}.RoundTrip(req, a.Own, a.Early)
	}
	header.Put(req.Header, a.Own)
	if protocol.TLS() {
		req.URL.Scheme = "https"
	}
	return e.transport(protocol, a.Backend, a.Upstream).RoundTrip(req)
}

// counted takes a request off its endpoint's load, once.
type counted struct {
	of   *endpoint
	done atomic.Bool
}

func (c *counted) end() {
	if c.done.CompareAndSwap(false, true) {
		c.of.load.Add(-1)
	}
}

type answer struct {
	io.ReadCloser
	counted
}

func (a *answer) Close() error { a.end(); return a.ReadCloser.Close() }

type tunnel struct {
	io.ReadWriteCloser
	counted
}

func (t *tunnel) Close() error { t.end(); return t.ReadWriteCloser.Close() }

// keepOpen leaves closing to the owner, who may want to send it elsewhere.
type keepOpen struct{ io.Reader }

func (keepOpen) Close() error { return nil }
