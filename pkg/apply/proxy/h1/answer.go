package h1

import (
	"net/http"
	"strconv"

	"poplin.dev/poplin/pkg/apply/proxy/engine"
	"poplin.dev/poplin/pkg/apply/proxy/wire"
)

// refuse answers in the proxy's own name, if nothing was answered yet.
func (x *exchange) refuse() after {
	x.record.Error = x.why
	if x.headed {
		return end
	}
	x.headed, x.record.Status = true, x.status
	// A body that nobody reads is between this request and the next.
	x.keep = x.keep && !x.req.HasBody() && !x.c.s.Draining()
	body := engine.Refusal(x.status, x.why)
	b := append(x.head(), "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(x.status), 10)
	b = append(append(append(b, ' '), http.StatusText(x.status)...), "\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n"...)
	b = wire.AppendDate(b, x.record.Start)
	b = wire.AppendLength(b, int64(len(body)))
	b = x.appendConnection(x.appendHSTS(b))
	b = append(b, "\r\n"...)
	if x.req.Method != http.MethodHead {
		b = append(b, body...)
		x.record.BytesOut = int64(len(body))
	}
	x.wrote(b)
	if _, err := x.c.Write(b); err != nil {
		return end
	}
	if x.keep {
		return next
	}
	return endGently
}

func (x *exchange) appendConnection(b []byte) []byte {
	switch {
	case !x.keep:
		b = append(b, "Connection: close\r\n"...)
	case x.req.Minor == 0:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	return b
}

// hsts reports whether the route has browsers keep to HTTPS.
func (x *exchange) hsts() bool { return x.route != nil && x.route.HSTS != "" && x.caller.Secure }

func (x *exchange) appendHSTS(b []byte) []byte {
	if x.hsts() {
		b = wire.AppendField(b, "Strict-Transport-Security", x.route.HSTS)
	}
	return b
}
