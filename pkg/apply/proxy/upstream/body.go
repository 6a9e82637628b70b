package upstream

import (
	"io"
	"net/http"
	"sync/atomic"
)

// do sends the request to this endpoint and counts it until its answer has
// been read.
func (e *endpoint) do(req *http.Request, a *Ask) (*http.Response, error) {
	t := e.transport(a.Backend, a.Upstream)
	req.URL.Host = a.Endpoint
	req.URL.Scheme = "http"
	if t.TLSClientConfig != nil {
		req.URL.Scheme = "https"
	}
	e.load.Add(1)
	resp, err := t.RoundTrip(req)
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
