package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/header"
	"poplin.dev/poplin/pkg/apply/proxy/link"
	"poplin.dev/poplin/pkg/program/web"
)

const (
	// DefaultConnect bounds a connection to an endpoint.
	DefaultConnect = 5 * time.Second
	// MaxAnswerHeader leaves room for large cookies and policies.
	MaxAnswerHeader = 256 << 10
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
		MaxIdleConnsPerHost:    link.MaxIdle,
		IdleConnTimeout:        link.IdleTime,
		TLSHandshakeTimeout:    tlsTime,
		ExpectContinueTimeout:  continueTime,
		MaxResponseHeaderBytes: MaxAnswerHeader,
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
	if a, ok := ctx.Value(connectKey{}).(*Ask); ok {
		return a.ConnectTime()
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
	// Own is what the proxy itself says in the request's header, in place of
	// what the client said under these names. It is not put there, as a map
	// that grows past eight names costs more than they do.
	Own []header.Field
	// Early is told of informational answers. http.Transport has a trace for
	// them; this is for requests that do not go through it.
	Early func(status int, h http.Header)

	// Endpoint and its ID are those of the last attempt.
	Endpoint, ID string
	// Attempts is how many endpoints were tried.
	Attempts int
	tried    [maxAttempts]*endpoint
}

// Protocol is the route's, or else the back end's.
func (a *Ask) Protocol() web.Protocol {
	if a.Upstream.Protocol != web.Auto {
		return a.Upstream.Protocol
	}
	return a.Backend.Protocol
}

// ErrNoEndpoint says that a back end has no endpoint at all.
var ErrNoEndpoint = errors.New("the back end has no ready endpoint")

// maxAttempts is ingress-nginx's proxy-next-upstream-tries.
const maxAttempts = 3

// Next chooses an endpoint that was not tried yet. It reports false when there
// is none, or enough were tried.
func (a *Ask) Next() bool {
	if a.Backend == nil || a.Attempts == maxAttempts || a.Attempts == len(a.Backend.endpoints) {
		return false
	}
	tried := a.tried[:a.Attempts]
	var e *endpoint
	if a.Sticky != "" && a.Attempts == 0 {
		e = a.Backend.sticky(a.Sticky)
	}
	if e == nil {
		e = a.Backend.pick(tried)
	}
	a.tried[a.Attempts] = e
	a.Attempts++
	a.Endpoint, a.ID = e.links.Address, e.id
	return true
}

// at is the endpoint of this attempt.
func (a *Ask) at() *endpoint { return a.tried[a.Attempts-1] }

// Rest has others preferred to this attempt's endpoint for a while: it could
// not be connected to.
func (a *Ask) Rest() { a.at().rest.Store(time.Now().Add(restTime).UnixNano()) }

// Load counts a request at this attempt's endpoint, and takes it off with -1.
func (a *Ask) Load(delta int64) { a.at().load.Add(delta) }

// Links is the connections to this attempt's endpoint.
func (a *Ask) Links() *link.Pool { return &a.at().links }

// ConnectTime bounds each connection attempt.
func (a *Ask) ConnectTime() time.Duration { return cmp.Or(a.Connect, DefaultConnect) }

// RoundTrip sends a request to an endpoint, and to another one if that
// endpoint cannot have seen it, or if the request is safe to repeat and
// nothing was answered. The body is closed by the caller.
func (a *Ask) RoundTrip(req *http.Request) (*http.Response, error) {
	if a.Connect > 0 {
		req = req.WithContext(context.WithValue(req.Context(), connectKey{}, a))
	}
	body := req.Body
	if body != nil {
		// The transport closes a body even when nothing was sent.
		req.Body = keepOpen{body}
	}
	for _, f := range a.Own {
		delete(req.Header, f.Name)
	}
	err := ErrNoEndpoint
	for a.Next() {
		var resp *http.Response
		if resp, err = a.at().do(req, a); err == nil {
			return resp, nil
		}
		var dial dialError
		unsent := errors.As(err, &dial)
		if req.Context().Err() != nil {
			return nil, err
		}
		if unsent {
			a.Rest()
		} else if !Repeatable(req) {
			return nil, err
		}
	}
	return nil, err
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
