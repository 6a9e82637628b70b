package proxy

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"

	"poplin.dev/poplin/pkg/apply/proxy/header"
)

// copyBuffer is what a body is copied through.
const copyBuffer = 64 << 10

// newReverse makes the part that is the same for all requests. Rewrite, not
// Director: what it sets, a client cannot have removed by naming it in
// Connection.
func (p *Proxy) newReverse() *httputil.ReverseProxy {
	return &httputil.ReverseProxy{
		Rewrite:        p.rewrite,
		Transport:      roundTripper{},
		ModifyResponse: p.received,
		ErrorHandler:   p.failed,
		ErrorLog:       log.New(debugWriter{p.Log}, "", 0),
		BufferPool:     &p.buffers,
	}
}

type roundTripper struct{}

func (roundTripper) RoundTrip(r *http.Request) (*http.Response, error) {
	return exchangeOf(r.Context()).ask.RoundTrip(r)
}

// buffers holds pointers, so that getting and putting one allocates nothing.
type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte {
	if p, ok := b.pool.Get().(*[copyBuffer]byte); ok {
		return p[:]
	}
	return make([]byte, copyBuffer)
}

func (b *buffers) Put(s []byte) { b.pool.Put((*[copyBuffer]byte)(s)) }

// rewrite makes the request for the endpoint.
func (p *Proxy) rewrite(pr *httputil.ProxyRequest) {
	x, out := exchangeOf(pr.Out.Context()), pr.Out
	// A tunnel to anything but WebSocket, such as h2c, would carry requests
	// that no rule has seen.
	if up := out.Header["Upgrade"]; len(up) > 0 && (len(up) > 1 || !strings.EqualFold(up[0], "websocket")) {
		delete(out.Header, "Upgrade")
		delete(out.Header, "Connection")
	}
	x.address(pr.In, out)
	header.Put(out.Header, x.introduce(pr.In))
}

// address gives the outgoing request its path and its host, and nothing that
// could be taken for our word. in and out may be the same.
func (x *exchange) address(in, out *http.Request) {
	// The query is left as it came: what we do not read, nobody can smuggle
	// past us in it.
	out.URL.RawQuery, out.URL.ForceQuery = in.URL.RawQuery, in.URL.ForceQuery
	out.URL.RawPath = x.target
	out.URL.Path, _ = url.PathUnescape(x.target)
	header.RemoveClaims(out.Header)
	if h := x.route.Upstream.Host; h != "" {
		out.Host = h
	}
}

// introduce says whom the request comes from.
func (x *exchange) introduce(in *http.Request) []header.Field {
	w := x.caller.Words(in.Host, x.said)
	x.own = [...]header.Field{
		{Name: "X-Forwarded-For", Value: w.For},
		{Name: "X-Forwarded-Host", Value: w.Host},
		{Name: "X-Forwarded-Proto", Value: w.Proto},
		{Name: "X-Forwarded-Scheme", Value: w.Proto},
		{Name: "X-Scheme", Value: w.Proto},
		{Name: "X-Forwarded-Port", Value: w.Port},
		{Name: "X-Real-Ip", Value: w.RealIP},
		{Name: "X-Request-Id", Value: x.record.ID},
	}
	return x.own[:]
}

// received looks at an endpoint's answer before it is passed on.
func (p *Proxy) received(resp *http.Response) error {
	x := exchangeOf(resp.Request.Context())
	if x.route.CORS != nil {
		for name := range resp.Header {
			if strings.HasPrefix(name, "Access-Control-") {
				delete(resp.Header, name)
			}
		}
	}
	if len(resp.Trailer) > 0 {
		// HTTP/1.1 has trailers after chunks only.
		delete(resp.Header, "Content-Length")
	}
	explicit := x.route.Read > 0
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return x.tunnel(resp, explicit)
	}
	if !explicit && strings.HasPrefix(resp.Header.Get("Content-Type"), "text/event-stream") {
		x.patient.Store(true)
	}
	if x.silence != nil && !x.patient.Load() {
		resp.Body = &responseBody{resp.Body, x, x.p.ReadSilence(x.route)}
		x.touch(x.p.ReadSilence(x.route))
	}
	return nil
}

// tunnel prepares an upgraded connection: it may be silent for as long as it
// likes, unless the route says otherwise.
func (x *exchange) tunnel(resp *http.Response, explicit bool) error {
	body, ok := resp.Body.(io.ReadWriteCloser)
	if !ok {
		return fmt.Errorf("the endpoint switched protocols on a connection that cannot")
	}
	x.record.Status, x.headed = resp.StatusCode, true
	if explicit {
		resp.Body = &tunnelBody{body, x, x.p.ReadSilence(x.route)}
		x.touch(x.p.ReadSilence(x.route))
	} else {
		x.patient.Store(true)
	}
	return nil
}
