package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/header"
	"poplin.dev/poplin/pkg/apply/proxy/upstream"
	"poplin.dev/poplin/pkg/program/web"
)

// exchange is one request and its answer. It is the ResponseWriter that the
// answer goes through.
type exchange struct {
	http.ResponseWriter
	p      *Proxy
	route  *web.Route
	ask    upstream.Ask
	record Record

	// peer is who is connected, client whom it speaks for.
	peer, client netip.Addr
	trusted      bool // peer is
	secure       bool // the client uses HTTPS
	host, path   string
	target       string    // the path that is forwarded
	forwarded    [6]string // backs header values

	// cancel ends the request to the endpoint; silence is the timer that
	// does when nothing moves.
	cancel   context.CancelFunc
	silence  *time.Timer
	patient  atomic.Bool // silence is allowed from now on
	timedOut atomic.Bool
	tooLarge atomic.Bool
	bodyIn   atomic.Int64
	headed   bool
}

// WriteHeader adds what the proxy itself has to say.
func (x *exchange) WriteHeader(status int) {
	if status >= 200 && !x.headed {
		x.headed = true
		x.record.Status = status
		h := x.Header()
		if x.p.draining.Load() {
			// On HTTP/2 the server turns this into a GOAWAY.
			h["Connection"] = []string{"close"}
		}
		if x.route != nil {
			x.mark(h)
		}
	}
	x.ResponseWriter.WriteHeader(status)
}

// mark sets the headers that a route asks for.
func (x *exchange) mark(h http.Header) {
	if x.route.HSTS != "" && x.secure {
		h["Strict-Transport-Security"] = []string{x.route.HSTS}
	}
	if a := x.route.Affinity; a != nil && x.ask.ID != "" && (x.ask.Sticky == "" || x.ask.ID != x.ask.Sticky && (a.Move || !x.known())) {
		h.Add("Set-Cookie", header.Cookie(a, x.ask.ID, x.secure))
	}
}

// known reports whether the client's endpoint is still there, though another
// one had to answer.
func (x *exchange) known() bool { return x.ask.Backend != nil && x.ask.Backend.Has(x.ask.Sticky) }

func (x *exchange) Write(b []byte) (int, error) {
	if !x.headed {
		x.WriteHeader(http.StatusOK)
	}
	n, err := x.ResponseWriter.Write(b)
	x.record.BytesOut += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// fail answers in the proxy's own name. why is for people; it holds nothing
// of the cluster.
func (x *exchange) fail(status int, why string) {
	x.record.Error = why
	if x.headed {
		return
	}
	h := x.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	body := strconv.Itoa(status) + " " + http.StatusText(status) + ": " + why + "\n"
	h.Set("Content-Length", strconv.Itoa(len(body)))
	x.WriteHeader(status)
	_, _ = io.WriteString(x, body)
}

// challenge asks who the client is.
func (x *exchange) challenge(why string, how ...string) {
	if len(how) > 0 {
		x.Header()["Www-Authenticate"] = how
	}
	x.fail(http.StatusUnauthorized, why)
}

// touch says that something moved.
func (x *exchange) touch(d time.Duration) {
	if x.silence != nil && !x.patient.Load() {
		x.silence.Reset(d)
	}
}

// broken is called when nothing moved for too long.
func (x *exchange) broken() {
	if !x.patient.Load() {
		x.timedOut.Store(true)
		x.cancel()
	}
}

// readTime is how long the endpoint may be silent.
func (x *exchange) readTime() time.Duration {
	if x.route.Read > 0 {
		return x.route.Read
	}
	return x.p.cfg.ReadTime
}

func (x *exchange) sendTime() time.Duration {
	if x.route.Send > 0 {
		return x.route.Send
	}
	return x.readTime()
}

// requestBody is a request's body on its way.
type requestBody struct {
	io.ReadCloser
	x     *exchange
	rc    *http.ResponseController
	limit int64
}

var errTooLarge = errors.New("the request's body is larger than the route allows")

// Read bounds the client's silence and the body's size. The deadline must not
// outlive the call: the server reads on in the background to learn whether
// the client has left.
func (b *requestBody) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(b.x.p.cfg.BodyTime))
	n, err := b.ReadCloser.Read(p)
	_ = b.rc.SetReadDeadline(time.Time{})
	b.x.touch(b.x.sendTime())
	if total := b.x.bodyIn.Add(int64(n)); b.limit > 0 && total > b.limit {
		b.x.tooLarge.Store(true)
		return 0, errTooLarge
	}
	return n, err
}

// responseBody tells of every read.
type responseBody struct {
	io.ReadCloser
	x *exchange
	d time.Duration
}

func (b *responseBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.x.touch(b.d)
	return n, err
}

// tunnelBody does so for an upgraded connection, in both directions.
type tunnelBody struct {
	io.ReadWriteCloser
	x *exchange
	d time.Duration
}

func (b *tunnelBody) Read(p []byte) (int, error) {
	n, err := b.ReadWriteCloser.Read(p)
	b.x.touch(b.d)
	return n, err
}

func (b *tunnelBody) Write(p []byte) (int, error) {
	b.x.touch(b.d)
	return b.ReadWriteCloser.Write(p)
}

// exchangeKey finds the exchange in a request's context.
type exchangeKey struct{}

// exchangeContext is context.WithValue and WithCancel for one key.
type exchangeContext struct {
	context.Context
	x *exchange
}

func (c exchangeContext) Value(key any) any {
	if key == (exchangeKey{}) {
		return c.x
	}
	return c.Context.Value(key)
}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// locate finds out whom the peer speaks for: the last address in
// X-Forwarded-For that is no trusted proxy's, as far as trust reaches.
func (x *exchange) locate(r *http.Request) {
	at, _ := netip.ParseAddrPort(r.RemoteAddr)
	x.peer = at.Addr().Unmap().WithZone("")
	x.client, x.secure = x.peer, r.TLS != nil
	if x.trusted = len(x.p.cfg.Trusted) > 0 && x.p.trusts(x.peer); !x.trusted {
		return
	}
	if proto := r.Header.Get("X-Forwarded-Proto"); proto != "" {
		x.secure = proto == "https"
	}
	hops := strings.Split(strings.Join(r.Header["X-Forwarded-For"], ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		a, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			return
		}
		x.client = a.Unmap().WithZone("")
		if !x.p.trusts(x.client) {
			return
		}
	}
}
