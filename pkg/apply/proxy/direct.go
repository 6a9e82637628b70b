package proxy

import (
	"io"
	"net/http"
	"strings"

	"poplin.dev/poplin/pkg/apply/proxy/header"
	"poplin.dev/poplin/pkg/apply/proxy/upstream"
)

// direct reports whether a request is one of the many that need nothing of
// httputil.ReverseProxy: no body, no upgrade, no trailers asked for. They are
// forwarded without a copy of the request, which is ours to change.
func (x *exchange) direct(r *http.Request) bool {
	return r.Body == http.NoBody && len(r.Header["Upgrade"]) == 0 && len(r.Header["Te"]) == 0 && upstream.Repeatable(r)
}

// serveDirect forwards such a request and copies the answer.
func (x *exchange) serveDirect(r *http.Request) {
	r.Body = nil
	header.RemoveHop(r.Header)
	x.ask.Own = x.introduce(r)
	x.address(r, r)
	x.ask.Early = x.early
	resp, err := x.ask.RoundTrip(r)
	if err != nil {
		x.p.failed(x, r, err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		x.fail(http.StatusBadGateway, "the back end switched protocols unasked")
		return
	}
	if err := x.p.received(resp); err != nil {
		x.p.failed(x, r, err)
		return
	}
	header.RemoveHop(resp.Header)
	h := x.Header()
	for name, values := range resp.Header {
		// Of ours, such as cookies of an authentication server, none is lost.
		h[name] = append(h[name], values...)
	}
	announced := len(resp.Trailer)
	for name := range resp.Trailer {
		h.Add("Trailer", name)
	}
	x.WriteHeader(resp.StatusCode)
	if err := x.copyBody(resp); err != nil {
		// The client must not take a part for the whole.
		panic(http.ErrAbortHandler)
	}
	if len(resp.Trailer) == 0 {
		return
	}
	_ = http.NewResponseController(x.ResponseWriter).Flush() // chunks, even for an empty body
	for name, values := range resp.Trailer {
		if len(resp.Trailer) != announced {
			name = http.TrailerPrefix + name
		}
		h[name] = values
	}
}

// copyBody passes every piece on as it comes where the length is not known:
// it may be a stream.
func (x *exchange) copyBody(resp *http.Response) error {
	if resp.Body == http.NoBody || x.record.Method == http.MethodHead {
		return nil
	}
	stream := resp.ContentLength < 0 || strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream")
	buf := x.p.buffers.Get()
	defer x.p.buffers.Put(buf)
	for {
		n, err := resp.Body.Read(buf)
		if n > 0 {
			if _, err := x.Write(buf[:n]); err != nil {
				return err
			}
			if stream && err == nil {
				if err := http.NewResponseController(x.ResponseWriter).Flush(); err != nil {
					return err
				}
			}
		}
		switch err {
		case nil:
		case io.EOF:
			return nil
		default:
			return err
		}
	}
}

// early passes an informational answer on (RFC 9110, section 15.2).
func (x *exchange) early(status int, informed http.Header) {
	h := x.Header()
	for name, values := range informed {
		h[name] = values
	}
	x.ResponseWriter.WriteHeader(status)
	for name := range informed {
		delete(h, name)
	}
}
