package proxy

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/header"
	"poplin.dev/poplin/pkg/apply/proxy/upstream"
	"poplin.dev/poplin/pkg/program/web"
)

// statusClientGone is nginx's number for a client that left.
const statusClientGone = 499

// ServeHTTP answers one request: route, guards, endpoint.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.active.Add(1)
	x := &exchange{ResponseWriter: w, p: p}
	x.record = Record{
		Start: time.Now(), Method: r.Method, Host: r.Host, URI: r.RequestURI, Proto: r.Proto, TLS: r.TLS != nil,
		UserAgent: r.Header.Get("User-Agent"), Referer: r.Header.Get("Referer"),
	}
	x.locate(r)
	x.record.Client = x.client
	x.record.ID = header.RequestID(r.Header)
	defer x.finish()
	st := p.state.Load()
	if !x.find(st, r) || !x.admit(r) {
		return
	}
	x.forward(st, r)
}

// finish also runs when the copying of an answer was given up by a panic
// with http.ErrAbortHandler: the request counts all the same.
func (x *exchange) finish() {
	x.record.Duration = time.Since(x.record.Start)
	x.record.Endpoint, x.record.Attempts = x.ask.Endpoint, x.ask.Attempts
	x.record.BytesIn = x.bodyIn.Load()
	x.p.cfg.Observer.Done(&x.record)
	x.p.active.Add(-1)
}

// find decides which route the request takes.
func (x *exchange) find(st *state, r *http.Request) bool {
	var ok bool
	if x.host, ok = web.HostName(r.Host); !ok && (r.Host != "" || r.ProtoAtLeast(1, 1)) {
		x.fail(http.StatusBadRequest, "the Host header is no host name")
		return false
	}
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		x.fail(http.StatusMethodNotAllowed, "this method is not served")
		return false
	}
	var err error
	if x.path, err = web.Clean(r.URL.EscapedPath()); err != nil {
		x.fail(http.StatusBadRequest, "the "+err.Error())
		return false
	}
	if x.p.cfg.NoEncodedSlash && (strings.Contains(x.path, "%2F") || strings.Contains(x.path, "%5C")) {
		x.fail(http.StatusBadRequest, "the path has an escaped slash")
		return false
	}
	x.route = st.program.Match(x.host, x.path)
	if x.route == nil {
		x.fail(http.StatusNotFound, "no route for this host and path")
		return false
	}
	x.record.Ingress, x.record.Backend, x.record.Quiet = x.route.Ingress, x.route.Backend, x.route.NoAccessLog
	return true
}

// admit asks the guards; one that objects has answered.
func (x *exchange) admit(r *http.Request) bool {
	o := x.route.Options
	switch {
	case o.Closed != "":
		x.fail(http.StatusServiceUnavailable, "this route is closed: its configuration cannot be followed safely")
	case o.ToHTTPS && !x.secure:
		x.redirect(x.httpsURL(r), http.StatusPermanentRedirect)
	case within(o.Deny, x.client), len(o.Allow) > 0 && !within(o.Allow, x.client):
		x.fail(http.StatusForbidden, "your address is not admitted here")
	case o.Redirect.To != "":
		x.redirect(o.Redirect.To, o.Redirect.Code)
	case o.CORS != nil && x.cors(r, o.CORS):
	case o.Basic != nil && !x.p.auth.basic(x, r, o.Basic):
	case o.External != nil && !x.p.auth.external(x, r, o.External):
	case o.BodyLimit > 0 && r.ContentLength > o.BodyLimit:
		x.fail(http.StatusRequestEntityTooLarge, errTooLarge.Error())
	default:
		return true
	}
	return false
}

func (x *exchange) redirect(to string, code int) {
	x.Header().Set("Location", to)
	x.Header().Set("Content-Length", "0")
	x.WriteHeader(code)
}

func (x *exchange) httpsURL(r *http.Request) string {
	host := x.host
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if x.p.cfg.HTTPSPort != 443 {
		host += ":" + strconv.Itoa(x.p.cfg.HTTPSPort)
	}
	return "https://" + host + x.uri(r)
}

// uri is the path as it was matched, with the query as it came.
func (x *exchange) uri(r *http.Request) string {
	if r.URL.RawQuery == "" && !r.URL.ForceQuery {
		return x.path
	}
	return x.path + "?" + r.URL.RawQuery
}

// forward lets an endpoint answer.
func (x *exchange) forward(st *state, r *http.Request) {
	ok := false
	if x.target, ok = x.route.Rewritten(x.path); !ok {
		x.fail(http.StatusBadRequest, "the path cannot be rewritten")
		return
	}
	x.ask = upstream.Ask{Backend: st.backends[x.route.Backend], Upstream: &x.route.Upstream, Connect: x.route.Connect}
	if a := x.route.Affinity; a != nil {
		if c, err := r.Cookie(a.Cookie); err == nil {
			x.ask.Sticky = c.Value
		}
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	x.cancel = cancel
	if x.route.Read > 0 || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		x.silence = time.AfterFunc(max(x.readTime(), x.sendTime()), x.broken)
		defer x.silence.Stop()
	}
	r = r.WithContext(exchangeContext{ctx, x})
	if x.direct(r) {
		x.serveDirect(r)
		return
	}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &requestBody{ReadCloser: r.Body, x: x, rc: http.NewResponseController(x.ResponseWriter), limit: x.route.BodyLimit}
	}
	x.p.reverse.ServeHTTP(x, r)
}

// failed turns a failure to get an answer into one.
func (p *Proxy) failed(_ http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	switch {
	case x.tooLarge.Load():
		x.fail(http.StatusRequestEntityTooLarge, errTooLarge.Error())
	case x.timedOut.Load():
		x.fail(http.StatusGatewayTimeout, "the back end did not answer in time")
	case errors.Is(err, upstream.ErrNoEndpoint):
		x.fail(http.StatusServiceUnavailable, err.Error())
	case r.Context().Err() != nil:
		// Nobody is listening. The write only ends the exchange.
		x.record.Status, x.record.Error = statusClientGone, "the client left"
		x.headed = true
		x.ResponseWriter.WriteHeader(http.StatusBadGateway)
	default:
		p.log.Debug("no answer", "ingress", x.route.Ingress.String(), "endpoint", x.ask.Endpoint, "error", err)
		x.fail(http.StatusBadGateway, "the back end gave no valid answer")
	}
}
