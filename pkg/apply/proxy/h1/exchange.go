package h1

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/engine"
	"poplin.dev/poplin/pkg/apply/proxy/header"
	"poplin.dev/poplin/pkg/apply/proxy/upstream"
	"poplin.dev/poplin/pkg/apply/proxy/wire"
	"poplin.dev/poplin/pkg/program/web"
)

// after is what becomes of a connection after a request.
type after uint8

const (
	next      after = iota // another request may come
	end                    // it is closed
	endGently              // it is closed once the client has read the answer
	handOver               // the request is for the other engine
)

// reason is why an exchange was cut short by another goroutine.
type reason = uint32

const (
	uncut reason = iota
	clientLeft
	bodyLate
	bodyLarge
	bodyBad
	bodyStalled // the endpoint takes no more of it
)

// exchange is one request and its answer.
type exchange struct {
	c      *conn
	req    wire.Request
	res    wire.Response
	record engine.Record
	caller engine.Caller
	said   engine.Words

	table        *engine.Table
	route        *web.Route
	path, query  string // path in normal form; query with its "?"
	target       string // the path that is forwarded
	ask          upstream.Ask
	status       int // of a refusal
	why          string
	body, answer wire.Body // the request's, the answer's

	// out is where heads are written.
	out *[]byte
	// upload sends a body that was not there with the head.
	upload *upload
	headed bool // the answer has begun
	keep   bool // the client may send another request
	reason atomic.Uint32
}

// heads are buffers for them.
var heads = sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }}

// maxHeadKept bounds what the pool holds on to.
const maxHeadKept = 64 << 10

// cut notes why the exchange must end. The first reason stands.
func (x *exchange) cut(r reason) { x.reason.CompareAndSwap(uncut, r) }

// serve answers the request that was parsed, whose head is the next headLen
// bytes of the connection's.
func (x *exchange) serve(headLen int) after {
	x.status, x.why, x.route = 0, "", nil
	x.caller = x.c.caller
	if x.req.Unusual || !x.find() {
		return handOver
	}
	x.c.r += headLen
	x.begin()
	defer x.finish()
	switch o := x.options(); {
	case x.status != 0:
	case o.Closed != "":
		x.status, x.why = 503, engine.Closed
	case !engine.Admits(o, x.caller.Client):
		x.status, x.why = 403, engine.NotAdmitted
	case o.BodyLimit > 0 && x.req.Length > o.BodyLimit:
		x.status, x.why = 413, engine.TooLarge
	default:
		var ok bool
		if x.target, ok = x.route.Rewritten(x.path); ok {
			return x.forward()
		}
		x.status, x.why = 400, engine.NoRewrite
	}
	return x.refuse()
}

var noOptions web.Options

func (x *exchange) options() *web.Options {
	if x.route == nil {
		return &noOptions
	}
	return x.route.Options
}

// find decides which route the request takes, or with what it is refused. It
// reports false where the route asks for more than this engine does.
func (x *exchange) find() bool {
	x.said = engine.Words{}
	if x.caller.Trusted {
		x.listen()
	}
	host, ok := web.HostName(x.req.Host)
	if !ok && (x.req.Host != "" || x.req.Minor == 1) {
		x.status, x.why = 400, engine.NoHost
		return true
	}
	path := x.req.Target
	x.query = ""
	if i := strings.IndexByte(path, '?'); i >= 0 {
		path, x.query = path[:i], path[i:]
	}
	var err error
	x.table = x.c.s.Table()
	x.path, err = web.Clean(path)
	switch {
	case err != nil:
		x.status, x.why = 400, "the "+err.Error()
		return true
	case x.c.s.NoEncodedSlash && engine.HasEscapedSlash(x.path):
		x.status, x.why = 400, engine.EscapedSlash
		return true
	}
	if x.route = x.table.Match(host, x.path); x.route == nil {
		x.status, x.why = 404, engine.NoRoute
		return true
	}
	x.ask = upstream.Ask{Backend: x.table.Backend(x.route), Upstream: &x.route.Upstream, Connect: x.route.Connect}
	o := x.route.Options
	return !(o.ToHTTPS && !x.caller.Secure) && o.Redirect.To == "" && o.CORS == nil && o.Basic == nil && o.External == nil && o.Affinity == nil &&
		(x.ask.Backend == nil || x.ask.Protocol() == web.HTTP)
}

// listen hears what a trusted proxy says.
func (x *exchange) listen() {
	for i := range x.req.Fields {
		f := &x.req.Fields[i]
		switch f.Role {
		case header.ForwardedFor:
			if x.said.For != "" {
				x.said.For += ", "
			}
			x.said.For += f.Value
		case header.ForwardedHost:
			x.said.Host = f.Value
		case header.ForwardedProto:
			x.said.Proto = f.Value
		case header.ForwardedPort:
			x.said.Port = f.Value
		}
	}
	x.c.s.Hear(&x.caller, x.said)
}

func (x *exchange) begin() {
	x.c.s.Begin()
	x.record = engine.Record{
		Start: time.Now(), Client: x.caller.Client, Method: x.req.Method, Host: x.req.Host, URI: x.req.Target, Proto: "HTTP/1.1", TLS: x.c.caller.Secure,
	}
	if x.req.Minor == 0 {
		x.record.Proto = "HTTP/1.0"
	}
	id := ""
	for i := range x.req.Fields {
		f := &x.req.Fields[i]
		switch f.Role {
		case header.UserAgent:
			x.record.UserAgent = f.Value
		case header.Referer:
			x.record.Referer = f.Value
		case header.RequestID:
			id = f.Value
		}
	}
	x.record.ID = header.ID(id)
	if x.route != nil {
		x.record.Take(x.route)
	}
	x.headed, x.keep, x.upload = false, x.req.KeepAlive(), nil
	x.reason.Store(uncut)
	x.out = heads.Get().(*[]byte)
}

func (x *exchange) finish() {
	x.record.Endpoint, x.record.Attempts = x.ask.Endpoint, x.ask.Attempts
	x.c.s.End(&x.record)
	if cap(*x.out) <= maxHeadKept {
		heads.Put(x.out)
	}
	x.out, x.table, x.route, x.ask = nil, nil, nil, upstream.Ask{}
}

// forget lets go of both messages: a connection holds little while it is idle.
func (x *exchange) forget() {
	x.req.Reset()
	x.res.Reset()
	x.body.Begin(0, false)
	x.answer.Begin(0, false)
	x.record, x.said = engine.Record{}, engine.Words{}
	x.path, x.query, x.target, x.why, x.upload = "", "", "", "", nil
}

// head is a buffer to write one into; wrote keeps what it grew to.
func (x *exchange) head() []byte   { return (*x.out)[:0] }
func (x *exchange) wrote(b []byte) { *x.out = b }

// malformed answers what is no request.
func (x *exchange) malformed(e *wire.Error) {
	x.req = wire.Request{}
	x.route, x.ask, x.caller = nil, upstream.Ask{}, x.c.caller
	x.begin()
	defer x.finish()
	x.status, x.why, x.keep = e.Status, e.Text, false
	x.refuse()
	x.c.linger()
}
