package h1

import (
	"errors"
	"net/http"
	"os"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/engine"
	"poplin.dev/poplin/pkg/apply/proxy/header"
	"poplin.dev/poplin/pkg/apply/proxy/link"
	"poplin.dev/poplin/pkg/apply/proxy/upstream"
	"poplin.dev/poplin/pkg/apply/proxy/wire"
)

// outcome is what became of an attempt.
type outcome uint8

const (
	answered outcome = iota // an answer has begun, and all of it was passed on
	broken                  // an answer has begun
	unsent                  // the endpoint has seen nothing
	deaf                    // nor taken the connection in time
	lost                    // it may have seen the request, and answered nothing
	invalid                 // it answered what is no answer
	late                    // it answered nothing in time
)

// forward lets an endpoint answer, or another one where that does no harm.
func (x *exchange) forward() after {
	x.request()
	o := unsent
	for o == unsent || o == deaf || o == lost && x.repeatable() {
		if x.reason.Load() != uncut || !x.ask.Next() {
			break
		}
		x.ask.Load(1)
		o = x.attempt()
		x.ask.Load(-1)
	}
	switch r := x.reason.Load(); {
	case o == answered && x.keep:
		return next
	case o == answered && x.upload == nil && x.c.r == x.c.w:
		return end
	case o == answered:
		return endGently // the client may still be sending
	case r == clientLeft:
		x.record.Error = engine.ClientGone
		if !x.headed {
			x.record.Status = engine.StatusClientGone
		}
		return end
	case o == broken:
		x.record.Error = "the back end's answer ended early"
		return end
	case r == bodyLarge:
		x.status, x.why = 413, engine.TooLarge
	case r == bodyLate:
		x.status, x.why = 408, "the request's body did not come in time"
	case r == bodyBad:
		x.status, x.why = 400, engine.BadBody
	case x.ask.Attempts == 0:
		x.status, x.why = 503, upstream.ErrNoEndpoint.Error()
	case o == late, o == deaf, r == bodyStalled:
		x.status, x.why = 504, engine.LateAnswer
	default:
		x.status, x.why = 502, engine.NoAnswer
	}
	return x.refuse()
}

// repeatable requests may reach an endpoint twice (RFC 9110, section 9.2.1).
func (x *exchange) repeatable() bool {
	switch x.req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return !x.req.HasBody()
	}
	return false
}

// request writes the head for the endpoint, and the body behind it where all
// of it is there.
func (x *exchange) request() {
	host := x.req.Host
	b := append(append(x.head(), x.req.Method...), ' ')
	b = append(append(append(b, x.target...), x.query...), " HTTP/1.1\r\n"...)
	if x.route.Upstream.Host != "" {
		b = wire.AppendField(b, "Host", x.route.Upstream.Host)
	} else {
		b = wire.AppendField(b, "Host", host)
	}
	for i := range x.req.Fields {
		f := &x.req.Fields[i]
		switch f.Role {
		case header.EndToEnd, header.Date, header.UserAgent, header.Referer, header.ContentType:
		case header.Trailer:
			if !x.req.Chunked {
				continue
			}
		default:
			continue // ours to say, or this hop's
		}
		if !x.req.Drops(f.Name) {
			b = wire.AppendField(b, f.Name, f.Value)
		}
	}
	w := x.caller.Words(host, x.said)
	b = wire.AppendField(b, "X-Forwarded-For", w.For)
	b = wire.AppendField(b, "X-Forwarded-Host", w.Host)
	b = wire.AppendField(b, "X-Forwarded-Proto", w.Proto)
	b = wire.AppendField(b, "X-Forwarded-Scheme", w.Proto)
	b = wire.AppendField(b, "X-Scheme", w.Proto)
	b = wire.AppendField(b, "X-Forwarded-Port", w.Port)
	b = wire.AppendField(b, "X-Real-Ip", w.RealIP)
	b = wire.AppendField(b, "X-Request-Id", x.record.ID)
	switch {
	case x.req.Chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case x.req.Sized():
		b = wire.AppendLength(b, x.req.Length)
	}
	b = append(b, "\r\n"...)
	if c := x.c; !x.req.Chunked && x.req.Length <= int64(c.w-c.r) {
		n := int(x.req.Length)
		b = append(b, c.buf[c.r:c.r+n]...)
		c.r += n
		x.record.BytesIn = x.req.Length
	} else {
		x.upload = &upload{x: x}
	}
	x.wrote(b)
}

// attempt sends the request to one endpoint. A connection that was closed
// while it was idle says nothing about the endpoint.
func (x *exchange) attempt() outcome {
	pool := x.ask.Links()
	for {
		now := time.Now()
		l := pool.Idle(now)
		reused := l != nil
		if !reused {
			var err error
			if l, err = pool.Dial(x.c.ctx, x.ask.ConnectTime()); err != nil {
				if x.ask.Rest(); engine.Late(err) {
					return deaf
				}
				return unsent
			}
		}
		o := x.talk(l, now)
		if !reused || o != unsent && (o != lost || !x.repeatable()) || x.reason.Load() != uncut {
			return o
		}
	}
}

// talk sends the request on a connection and passes the answer on. The
// connection is kept only if both messages went over it whole, and nothing
// else did.
func (x *exchange) talk(l *link.Link, now time.Time) outcome {
	silence := x.c.s.ReadSilence(x.route)
	l.Silence(now, silence)
	l.Stall(x.c.s.SendSilence(x.route))
	in, err := x.send(l, now, silence)
	o := lost
	switch {
	case err == nil:
		o = x.receive(l, in)
	case errors.Is(err, link.ErrStale):
		o = unsent
	case engine.Late(err):
		o = late
	}
	whole := o == answered && x.res.Reusable()
	if x.upload == nil {
		x.c.attend(nil, now)
	} else if !x.upload.end(l) {
		whole, x.keep = false, false
	}
	if whole && x.reason.Load() == uncut {
		x.ask.Links().Keep(l, time.Now())
	} else {
		l.Close()
	}
	return o
}

// send returns the beginning of the answer.
func (x *exchange) send(l *link.Link, now time.Time, silence time.Duration) (*link.Buffer, error) {
	if x.upload == nil {
		if x.c.r == x.c.w {
			x.c.attend(l, now)
		}
		return l.Ask(*x.out)
	}
	if !l.Quiet() {
		return nil, link.ErrStale
	}
	if _, err := l.Write(*x.out); err != nil {
		return nil, err
	}
	x.upload.start(l)
	return x.more(l, silence)
}

// more waits for more of the answer. An endpoint may be silent for longer
// while it takes the request's body.
func (x *exchange) more(l *link.Link, silence time.Duration) (*link.Buffer, error) {
	for {
		// Whoever interrupts says why first: so it is seen here, or ends
		// the wait.
		if l.Silence(time.Now(), silence); x.reason.Load() != uncut {
			return nil, os.ErrDeadlineExceeded
		}
		in, err := l.Fill(nil)
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) || x.upload == nil || !x.upload.moved(silence) {
			return in, err
		}
	}
}
