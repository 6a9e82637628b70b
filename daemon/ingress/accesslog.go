package ingress

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"poplin.dev/poplin/pkg/apply/proxy"
	"poplin.dev/poplin/pkg/loop"
)

// flushTime is how long a line may wait for others to be written with it.
const flushTime = 200 * time.Millisecond

// accessLog writes a line for each request. It implements loop.Task.
type accessLog struct {
	parts []part
	json  bool
	off   bool
	ready *loop.Ready

	mu   sync.Mutex
	out  *bufio.Writer
	line []byte
}

// part is literal text, or a field of a request.
type part struct {
	text  string
	field func(b []byte, r *proxy.Record) []byte
}

// fields go by nginx's names, which people's parsers know.
var fields = map[string]func(b []byte, r *proxy.Record) []byte{
	"remote_addr":         func(b []byte, r *proxy.Record) []byte { return r.Client.AppendTo(b) },
	"remote_user":         func(b []byte, _ *proxy.Record) []byte { return append(b, '-') },
	"time_local":          func(b []byte, r *proxy.Record) []byte { return r.Start.AppendFormat(b, "02/Jan/2006:15:04:05 -0700") },
	"time_iso8601":        func(b []byte, r *proxy.Record) []byte { return r.Start.AppendFormat(b, time.RFC3339) },
	"request":             func(b []byte, r *proxy.Record) []byte { return text(b, r.Method+" "+r.URI+" "+r.Proto) },
	"request_method":      func(b []byte, r *proxy.Record) []byte { return text(b, r.Method) },
	"request_uri":         func(b []byte, r *proxy.Record) []byte { return text(b, r.URI) },
	"server_protocol":     func(b []byte, r *proxy.Record) []byte { return text(b, r.Proto) },
	"host":                func(b []byte, r *proxy.Record) []byte { return text(b, r.Host) },
	"scheme":              func(b []byte, r *proxy.Record) []byte { return append(b, scheme(r)...) },
	"status":              func(b []byte, r *proxy.Record) []byte { return strconv.AppendInt(b, int64(r.Status), 10) },
	"body_bytes_sent":     func(b []byte, r *proxy.Record) []byte { return strconv.AppendInt(b, r.BytesOut, 10) },
	"bytes_sent":          func(b []byte, r *proxy.Record) []byte { return strconv.AppendInt(b, r.BytesOut, 10) },
	"request_length":      func(b []byte, r *proxy.Record) []byte { return strconv.AppendInt(b, r.BytesIn, 10) },
	"request_time":        func(b []byte, r *proxy.Record) []byte { return seconds(b, r.Duration) },
	"http_referer":        func(b []byte, r *proxy.Record) []byte { return text(b, r.Referer) },
	"http_user_agent":     func(b []byte, r *proxy.Record) []byte { return text(b, r.UserAgent) },
	"req_id":              func(b []byte, r *proxy.Record) []byte { return text(b, r.ID) },
	"upstream_addr":       func(b []byte, r *proxy.Record) []byte { return text(b, r.Endpoint) },
	"upstream_attempts":   func(b []byte, r *proxy.Record) []byte { return strconv.AppendInt(b, int64(r.Attempts), 10) },
	"proxy_upstream_name": func(b []byte, r *proxy.Record) []byte { return text(b, r.Backend.String()) },
	"namespace":           func(b []byte, r *proxy.Record) []byte { return text(b, r.Ingress.Namespace) },
	"ingress_name":        func(b []byte, r *proxy.Record) []byte { return text(b, r.Ingress.Name) },
	"service_name":        func(b []byte, r *proxy.Record) []byte { return text(b, r.Backend.Service.Name) },
	"service_port":        func(b []byte, r *proxy.Record) []byte { return text(b, r.Backend.Port) },
	"error":               func(b []byte, r *proxy.Record) []byte { return text(b, r.Error) },
}

// jsonFields are the JSON line's, in order; quoted ones are text.
var jsonFields = []struct {
	name   string
	quoted bool
}{
	{"time_iso8601", true}, {"remote_addr", true}, {"request_method", true}, {"scheme", true}, {"host", true}, {"request_uri", true}, {"server_protocol", true},
	{"status", false}, {"request_time", false}, {"request_length", false}, {"body_bytes_sent", false}, {"namespace", true}, {"ingress_name", true},
	{"proxy_upstream_name", true}, {"upstream_addr", true}, {"upstream_attempts", false}, {"req_id", true}, {"http_user_agent", true}, {"http_referer", true}, {"error", true},
}

func newAccessLog(format string, out io.Writer) (*accessLog, error) {
	l := &accessLog{out: bufio.NewWriterSize(out, 64<<10), ready: loop.NewReady(), json: format == "json", off: format == "off"}
	l.ready.Set()
	if l.json || l.off {
		return l, nil
	}
	for format != "" {
		i := strings.IndexByte(format, '$')
		if i < 0 {
			i = len(format)
		}
		if i > 0 {
			l.parts = append(l.parts, part{text: format[:i]})
			format = format[i:]
			continue
		}
		n := 1
		for n < len(format) && (format[n] == '_' || format[n] >= 'a' && format[n] <= 'z' || format[n] >= '0' && format[n] <= '9') {
			n++
		}
		f, known := fields[format[1:n]]
		if !known {
			return nil, fmt.Errorf("read -access-log: variable %q is not known: docs/ingress.md lists them; write json or off for no format", format[:n])
		}
		l.parts = append(l.parts, part{field: f})
		format = format[n:]
	}
	return l, nil
}

func (l *accessLog) Ready() <-chan struct{} { return l.ready.Done() }
func (l *accessLog) String() string         { return "access log" }

// Run writes out what waits, now and then.
func (l *accessLog) Run(ctx context.Context) error {
	tick := time.NewTicker(flushTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			l.flush()
			return nil
		case <-tick.C:
			l.flush()
		}
	}
}

func (l *accessLog) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.out.Flush() // there is nobody else to tell
}

func (l *accessLog) write(r *proxy.Record) {
	if l.off || r.Quiet {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.line[:0]
	if l.json {
		b = appendJSON(b, r)
	} else {
		for _, p := range l.parts {
			if p.field == nil {
				b = append(b, p.text...)
			} else {
				b = p.field(b, r)
			}
		}
	}
	b = append(b, '\n')
	_, _ = l.out.Write(b) // a log that cannot be written has nobody to tell
	l.line = b
}

func appendJSON(b []byte, r *proxy.Record) []byte {
	b = append(b, '{')
	for i, f := range jsonFields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), f.name...), '"', ':')
		if f.quoted {
			b = append(fields[f.name](append(b, '"'), r), '"')
		} else {
			b = fields[f.name](b, r)
		}
	}
	return append(b, '}')
}

// text appends what a client wrote so that it can neither end a line nor a
// string of JSON.
func text(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		switch r, size := utf8.DecodeRuneInString(s[i:]); {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
			i++
		case c < ' ' || c == 0x7f || r == utf8.RuneError && size == 1:
			b = fmt.Appendf(b, `\u%04x`, c)
			i++
		default:
			b = append(b, s[i:i+size]...)
			i += size
		}
	}
	return b
}

func seconds(b []byte, d time.Duration) []byte {
	return strconv.AppendFloat(b, d.Seconds(), 'f', 3, 64)
}

func scheme(r *proxy.Record) string {
	if r.TLS {
		return "https"
	}
	return "http"
}
