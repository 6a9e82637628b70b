package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"poplin.dev/poplin/pkg/program/web"
)

const (
	// DefaultConnect bounds a connection to an endpoint.
	DefaultConnect = 5 * time.Second
	// idleTime is below what common servers keep an idle connection for
	// (Node.js and uvicorn 5 s), so that a request is rarely written to a
	// connection the server has just closed.
	idleTime = 4 * time.Second
	// maxIdle is per endpoint.
	maxIdle = 512
	// maxAnswerHeader leaves room for large cookies and policies.
	maxAnswerHeader = 256 << 10
	tlsTime         = 10 * time.Second
	// continueTime is how long a body waits for "100 Continue".
	continueTime = time.Second
)

// profile is what connections must have in common to be shared.
type profile struct {
	protocol   web.Protocol
	serverName string
	insecure   bool
	roots      string
}

// dialError is a failure before the first byte: the endpoint has seen nothing.
type dialError struct{ error }

func (d dialError) Unwrap() error { return d.error }

// transport returns the endpoint's transport for a profile.
func (e *endpoint) transport(protocol web.Protocol, b *Backend, up *web.Upstream) *http.Transport {
	if protocol == web.HTTP {
		if t := e.plain.Load(); t != nil {
			return t
		}
		e.plain.CompareAndSwap(nil, e.newTransport(profile{protocol: protocol}, nil))
		return e.plain.Load()
	}
	key := profile{protocol: protocol}
	if protocol.TLS() {
		key.serverName, key.insecure, key.roots = up.ServerName, up.Insecure, up.RootsID
		if key.serverName == "" {
			key.serverName = b.ID.Service.Name + "." + b.ID.Service.Namespace + ".svc"
		}
	}
	if t, found := e.transports.Load(key); found {
		return t.(*http.Transport)
	}
	t, _ := e.transports.LoadOrStore(key, e.newTransport(key, up))
	return t.(*http.Transport)
}

func (e *endpoint) newTransport(p profile, up *web.Upstream) *http.Transport {
	var dialer net.Dialer
	address := e.addr.String()
	t := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, connectTime(ctx))
			defer cancel()
			c, err := dialer.DialContext(ctx, network, address)
			if err != nil {
				return nil, dialError{err}
			}
			return c, nil
		},
		DisableCompression:     true,
		MaxIdleConnsPerHost:    maxIdle,
		IdleConnTimeout:        idleTime,
		TLSHandshakeTimeout:    tlsTime,
		ExpectContinueTimeout:  continueTime,
		MaxResponseHeaderBytes: maxAnswerHeader,
		Protocols:              new(http.Protocols),
	}
	switch p.protocol {
	case web.H2C:
		t.Protocols.SetUnencryptedHTTP2(true)
	case web.H2:
		t.Protocols.SetHTTP2(true)
	case web.HTTPS:
		t.Protocols.SetHTTP1(true)
		t.Protocols.SetHTTP2(true)
	default:
		t.Protocols.SetHTTP1(true)
	}
	if p.protocol.TLS() {
		t.TLSClientConfig = &tls.Config{
			ServerName: p.serverName, RootCAs: up.Roots, InsecureSkipVerify: p.insecure,
			MinVersion: tls.VersionTLS12,
		}
	}
	if t.Protocols.HTTP2() || t.Protocols.UnencryptedHTTP2() {
		// A connection that has gone silent is found by a ping.
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 15 * time.Second, PingTimeout: 10 * time.Second}
	}
	return t
}

type connectKey struct{}

// connectTime is how long the request of ctx waits for a connection.
func connectTime(ctx context.Context) time.Duration {
	if a, ok := ctx.Value(connectKey{}).(*Ask); ok && a.Connect > 0 {
		return a.Connect
	}
	return DefaultConnect
}

// Ask is one request's wishes and what became of them.
type Ask struct {
	Backend  *Backend
	Upstream *web.Upstream
	// Connect bounds each connection attempt; 0 is the default.
	Connect time.Duration
	// Sticky names the endpoint that answered this client before.
	Sticky string
	// Early is told of informational answers. http.Transport has a trace for
	// them; this is for requests that do not go through it.
	Early func(status int, h http.Header)

	// Endpoint and its ID are those of the last attempt.
	Endpoint, ID string
	// Attempts is how many endpoints were tried.
	Attempts int
}

// protocol is the route's, or else the back end's.
func (a *Ask) protocol() web.Protocol {
	if a.Upstream.Protocol != web.Auto {
		return a.Upstream.Protocol
	}
	return a.Backend.Protocol
}

// ErrNoEndpoint says that a back end has no endpoint at all.
var ErrNoEndpoint = errors.New("the back end has no ready endpoint")

// maxAttempts is ingress-nginx's proxy-next-upstream-tries.
const maxAttempts = 3

// RoundTrip sends a request to an endpoint, and to another one if that
// endpoint cannot have seen it, or if the request is safe to repeat and
// nothing was answered. The body is closed by the caller.
func (a *Ask) RoundTrip(req *http.Request) (*http.Response, error) {
	if a.Backend == nil || len(a.Backend.endpoints) == 0 {
		return nil, ErrNoEndpoint
	}
	if a.Connect > 0 {
		req = req.WithContext(context.WithValue(req.Context(), connectKey{}, a))
	}
	body := req.Body
	if body != nil {
		// The transport closes a body even when nothing was sent.
		req.Body = keepOpen{body}
	}
	var room [maxAttempts]*endpoint
	tried := room[:0]
	for {
		e := a.next(tried)
		if e == nil {
			return nil, ErrNoEndpoint
		}
		tried = append(tried, e)
		a.Attempts++
		a.Endpoint, a.ID = e.addr.String(), e.id
		resp, err := e.do(req, a)
		if err == nil {
			return resp, nil
		}
		var dial dialError
		unsent := errors.As(err, &dial)
		if req.Context().Err() != nil {
			return nil, err
		}
		if unsent {
			e.rest.Store(time.Now().Add(restTime).UnixNano())
		}
		if len(tried) == maxAttempts || len(tried) >= len(a.Backend.endpoints) || !unsent && !Repeatable(req) {
			return nil, err
		}
	}
}

func (a *Ask) next(tried []*endpoint) *endpoint {
	if a.Sticky != "" && len(tried) == 0 {
		if e := a.Backend.sticky(a.Sticky); e != nil {
			return e
		}
	}
	return a.Backend.pick(tried)
}

// Repeatable requests may reach an endpoint twice (RFC 9110, section 9.2.1).
func Repeatable(req *http.Request) bool {
	if req.Body != nil && req.Body != http.NoBody {
		return false
	}
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return req.Header.Get("Upgrade") == ""
	}
	return false
}
