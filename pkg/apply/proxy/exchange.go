package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/engine"
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

	caller     engine.Caller
	said       engine.Words
	host, path string
	target     string          // the path that is forwarded
	own        [8]header.Field // of the request to the endpoint

	// cancel ends the request to the endpoint; silence is the timer that
	// does when nothing moves.
	cancel   context.CancelFunc
	silence  *time.Timer
	patient  atomic.Bool // silence is allowed from now on
	timedOut atomic.Bool
	tooLarge atomic.Bool
	badBody  atomic.Bool
	bodyIn   atomic.Int64
	headed   bool
	body     *requestBody // nil if there is none
}

// WriteHeader adds what the proxy itself has to say.
func (x *exchange) WriteHeader(status int) {
	if status >= 200 && !x.headed {
		x.headed = true
		x.record.Status = status
		h := x.Header()
		if x.p.Draining() {
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
	if x.route.HSTS != "" && x.caller.Secure {
		h["Strict-Transport-Security"] = []string{x.route.HSTS}
	}
	if a := x.route.Affinity; a != nil && x.ask.ID != "" && (x.ask.Sticky == "" || x.ask.ID != x.ask.Sticky && (a.Move || !x.known())) {
		h.Add("Set-Cookie", header.Cookie(a, x.ask.ID, x.caller.Secure))
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
	body := engine.Refusal(status, why)
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

// requestBody is a request's body on its way.
type requestBody struct {
	io.ReadCloser
	x     *exchange
	limit int64

	// rc is nil once the exchange is over: a transport may read on, and the
	// connection is another request's then.
	mu sync.Mutex
	rc *http.ResponseController
}

func (b *requestBody) deadline(t time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.rc != nil {
		_ = b.rc.SetReadDeadline(t) // what fails is the read
	}
}

// end leaves the connection alone from now on.
func (b *requestBody) end() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rc = nil
}

var errTooLarge = errors.New(engine.TooLarge)

// Read bounds the client's silence and the body's size. The deadline must not
// outlive the call: the server reads on in the background to learn whether
// the client has left. But what failed once is not waited for again.
func (b *requestBody) Read(p []byte) (int, error) {
	b.deadline(time.Now().Add(b.x.p.BodyTime))
	n, err := b.ReadCloser.Read(p)
	if err == nil || err == io.EOF {
		b.deadline(time.Time{})
	}
	b.x.touch(b.x.p.SendSilence(b.x.route))
	if total := b.x.bodyIn.Add(int64(n)); b.limit > 0 && total > b.limit {
		b.x.tooLarge.Store(true)
		return 0, errTooLarge
	}
	if err != nil && err != io.EOF {
		b.x.badBody.Store(true)
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
