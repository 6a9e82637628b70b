package proxy

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/engine"
	"poplin.dev/poplin/pkg/apply/proxy/header"
	"poplin.dev/poplin/pkg/apply/proxy/upstream"
	"poplin.dev/poplin/pkg/program/web"
)

// ServeHTTP answers one request: route, guards, endpoint.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	makeRoom(0)
	p.Begin()
	x := &exchange{ResponseWriter: w, p: p}
	x.record = Record{
		Start: time.Now(), Method: r.Method, Host: r.Host, URI: r.RequestURI, Proto: r.Proto, TLS: r.TLS != nil,
		UserAgent: r.Header.Get("User-Agent"), Referer: r.Header.Get("Referer"),
	}
	x.caller = p.Caller(r.RemoteAddr, r.TLS != nil)
	x.said = said(r)
	p.Hear(&x.caller, x.said)
	x.record.Client = x.caller.Client
	x.record.ID = header.ID(r.Header.Get("X-Request-Id"))
	defer x.finish()
	st := p.Table()
	if !x.find(st, r) || !x.admit(r) {
		return
	}
	x.forward(st, r)
}

// finish also runs when the copying of an answer was given up by a panic
// with http.ErrAbortHandler: the request counts all the same.
func (x *exchange) finish() {
	if x.body != nil {
		x.body.end()
	}
	x.record.Endpoint, x.record.Attempts = x.ask.Endpoint, x.ask.Attempts
	x.record.BytesIn = x.bodyIn.Load()
	x.p.End(&x.record)
}

// said is what the request came with under the names of our words.
func said(r *http.Request) engine.Words {
	return engine.Words{
		For: strings.Join(r.Header["X-Forwarded-For"], ", "), Host: r.Header.Get("X-Forwarded-Host"),
		Proto: r.Header.Get("X-Forwarded-Proto"), Port: r.Header.Get("X-Forwarded-Port"),
	}
}

// find decides which route the request takes.
func (x *exchange) find(st *engine.Table, r *http.Request) bool {
	var ok bool
	if x.host, ok = web.HostName(r.Host); !ok && (r.Host != "" || r.ProtoAtLeast(1, 1)) {
		x.fail(http.StatusBadRequest, engine.NoHost)
		return false
	}
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace {
		x.fail(http.StatusMethodNotAllowed, engine.NoMethod)
		return false
	}
	var err error
	if x.path, err = web.Clean(r.URL.EscapedPath()); err != nil {
		x.fail(http.StatusBadRequest, "the "+err.Error())
		return false
	}
	if x.p.NoEncodedSlash && engine.HasEscapedSlash(x.path) {
		x.fail(http.StatusBadRequest, engine.EscapedSlash)
		return false
	}
	x.route = st.Match(x.host, x.path)
	if x.route == nil {
		x.fail(http.StatusNotFound, engine.NoRoute)
		return false
	}
	x.record.Take(x.route)
	return true
}

// admit asks the guards; one that objects has answered.
func (x *exchange) admit(r *http.Request) bool {
	o := x.route.Options
	switch {
	case o.Closed != "":
		x.fail(http.StatusServiceUnavailable, engine.Closed)
	case o.ToHTTPS && !x.caller.Secure:
		x.redirect(x.httpsURL(r), http.StatusPermanentRedirect)
	case !engine.Admits(o, x.caller.Client):
		x.fail(http.StatusForbidden, engine.NotAdmitted)
	case o.Redirect.To != "":
		x.redirect(o.Redirect.To, o.Redirect.Code)
	case o.CORS != nil && x.cors(r, o.CORS):
	case o.Basic != nil && !x.p.auth.basic(x, r, o.Basic):
	case o.External != nil && !x.p.auth.external(x, r, o.External):
	case o.BodyLimit > 0 && r.ContentLength > o.BodyLimit:
		x.fail(http.StatusRequestEntityTooLarge, engine.TooLarge)
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
	if x.p.HTTPSPort != 443 {
		host += ":" + strconv.Itoa(x.p.HTTPSPort)
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
func (x *exchange) forward(st *engine.Table, r *http.Request) {
	ok := false
	if x.target, ok = x.route.Rewritten(x.path); !ok {
		x.fail(http.StatusBadRequest, engine.NoRewrite)
		return
	}
	x.ask = upstream.Ask{Backend: st.Backend(x.route), Upstream: &x.route.Upstream, Connect: x.route.Connect}
	if a := x.route.Affinity; a != nil {
		if c, err := r.Cookie(a.Cookie); err == nil {
			x.ask.Sticky = c.Value
		}
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	x.cancel = cancel
	if x.route.Read > 0 || !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		x.silence = time.AfterFunc(max(x.p.ReadSilence(x.route), x.p.SendSilence(x.route)), x.broken)
		defer x.silence.Stop()
	}
	r = r.WithContext(exchangeContext{ctx, x})
	if r.ContentLength == 0 {
		// What an HTTP/2 stream that ended with its header has instead.
		r.Body = http.NoBody
	}
	if x.direct(r) {
		x.serveDirect(r)
		return
	}
	if r.Body != nil && r.Body != http.NoBody {
		x.body = &requestBody{ReadCloser: r.Body, x: x, rc: http.NewResponseController(x.ResponseWriter), limit: x.route.BodyLimit}
		r.Body = x.body
	}
	x.p.reverse.ServeHTTP(x, r)
}

// failed turns a failure to get an answer into one.
func (p *Proxy) failed(_ http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	switch {
	case x.tooLarge.Load():
		x.fail(http.StatusRequestEntityTooLarge, engine.TooLarge)
	case x.timedOut.Load():
		x.fail(http.StatusGatewayTimeout, engine.LateAnswer)
	case errors.Is(err, upstream.ErrNoEndpoint):
		x.fail(http.StatusServiceUnavailable, err.Error())
	case r.Context().Err() != nil:
		// Nobody is listening. The write only ends the exchange.
		x.record.Status, x.record.Error = engine.StatusClientGone, engine.ClientGone
		x.headed = true
		x.ResponseWriter.WriteHeader(http.StatusBadGateway)
	case x.badBody.Load():
		x.fail(http.StatusBadRequest, engine.BadBody)
	case engine.Late(err):
		x.fail(http.StatusGatewayTimeout, engine.LateAnswer)
	default:
		p.Log.Debug("no answer", "ingress", x.route.Ingress.String(), "endpoint", x.ask.Endpoint, "error", err)
		x.fail(http.StatusBadGateway, engine.NoAnswer)
	}
}
