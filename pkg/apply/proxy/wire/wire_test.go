package wire

import (
	"errors"
	"strings"
	"testing"
)

const host = "Host: a\r\n"

// requests is what is read as a request, and what is not.
var requests = []struct{ what, text, want string }{
	{"the least", "GET / HTTP/1.1\r\n" + host + "\r\n", "GET / a 0"},
	{"a length", "POST /x?y HTTP/1.1\r\n" + host + "Content-Length: 12\r\n\r\n", "POST /x?y a 12"},
	{"chunks", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: Chunked\r\n\r\n", "POST / a chunked"},
	{"HTTP/1.0 without a host", "GET / HTTP/1.0\r\n\r\n", "GET /  0 close"},
	{"HTTP/1.0 that stays", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "GET /  0"},
	{"the last one", "GET / HTTP/1.1\r\n" + host + "Connection: x, close\r\n\r\n", "GET / a 0 close"},
	{"white space around a value", "GET / HTTP/1.1\r\nHost: \t a \t\r\n\r\n", "GET / a 0"},
	{"no value", "GET / HTTP/1.1\r\n" + host + "X:\r\n\r\n", "GET / a 0"},
	{"a value beyond ASCII", "GET / HTTP/1.1\r\n" + host + "X: \xc3\xa4\r\n\r\n", "GET / a 0"},

	{"HTTP/2", "PRI * HTTP/2.0\r\n\r\n", "unusual"},
	{"an upgrade", "GET / HTTP/1.1\r\n" + host + "Upgrade: websocket\r\n\r\n", "unusual"},
	{"a question before the body", "POST / HTTP/1.1\r\n" + host + "Expect: 100-continue\r\nContent-Length: 1\r\n\r\n", "unusual"},
	{"trailers wanted", "GET / HTTP/1.1\r\n" + host + "TE: trailers\r\n\r\n", "unusual"},
	{"gRPC", "POST / HTTP/1.1\r\n" + host + "Content-Type: application/grpc-web\r\n\r\n", "unusual"},
	{"a whole URL", "GET http://a/ HTTP/1.1\r\n" + host + "\r\n", "unusual"},
	{"a target beyond ASCII", "GET /\xc3\xa4 HTTP/1.1\r\n" + host + "\r\n", "unusual"},
	{"a path that is no URL's", "GET /a|b HTTP/1.1\r\n" + host + "\r\n", "unusual"},
	{"a query that is no URL's", "GET /a?b={\"c|d\"} HTTP/1.1\r\n" + host + "\r\n", "GET /a?b={\"c|d\"} a 0"},
	{"a fragment", "GET /a#b HTTP/1.1\r\n" + host + "\r\n", "unusual"},
	{"a tunnel", "CONNECT a:1 HTTP/1.1\r\n" + host + "\r\n", "unusual"},
	{"another version", "GET / HTTP/3.0\r\n" + host + "\r\n", "unusual"},

	{"an empty line first", "\r\nGET / HTTP/1.1\r\n" + host + "\r\n", "400"},
	{"a bare line feed after the request", "GET / HTTP/1.1\n" + host + "\r\n", "400"},
	{"a bare line feed after a header", "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", "400"},
	{"a bare line feed at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", "400"},
	{"a bare carriage return", "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n", "400"},
	{"a folded header", "GET / HTTP/1.1\r\n" + host + "X: y\r\n z\r\n\r\n", "400"},
	{"a header folded at once", "GET / HTTP/1.1\r\n" + host + "X:\r\n\tz\r\n\r\n", "400"},
	{"a space before the first header", "GET / HTTP/1.1\r\n " + host + "\r\n", "400"},
	{"a space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", "400"},
	{"a space in a name", "GET / HTTP/1.1\r\n" + host + "X Y: z\r\n\r\n", "400"},
	{"no name", "GET / HTTP/1.1\r\n" + host + ": z\r\n\r\n", "400"},
	{"no colon", "GET / HTTP/1.1\r\n" + host + "X\r\n\r\n", "400"},
	{"a null byte", "GET / HTTP/1.1\r\n" + host + "X: \x00\r\n\r\n", "400"},
	{"two lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nContent-Length: 1\r\n\r\n", "400"},
	{"a list of lengths", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1, 1\r\n\r\n", "400"},
	{"a signed length", "POST / HTTP/1.1\r\n" + host + "Content-Length: +1\r\n\r\n", "400"},
	{"a hexadecimal length", "POST / HTTP/1.1\r\n" + host + "Content-Length: 0x1\r\n\r\n", "400"},
	{"no length", "POST / HTTP/1.1\r\n" + host + "Content-Length:\r\n\r\n", "400"},
	{"a length past all", "POST / HTTP/1.1\r\n" + host + "Content-Length: 9999999999999999999\r\n\r\n", "400"},
	{"a length and a coding", "POST / HTTP/1.1\r\n" + host + "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400"},
	{"a coding and a length", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "400"},
	{"both, with an upgrade", "POST / HTTP/1.1\r\n" + host + "Upgrade: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "400"},
	{"an unknown coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip\r\n\r\n", "501"},
	{"two codings", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: gzip, chunked\r\n\r\n", "501"},
	{"chunked twice", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "501"},
	{"a quoted coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: \"chunked\"\r\n\r\n", "501"},
	{"no coding", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding:\r\n\r\n", "501"},
	{"a coding of HTTP/1.0", "POST / HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n", "400"},
	{"a length in the trailer", "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTrailer: X, content-length\r\n\r\n", "400"},
	{"no host", "GET / HTTP/1.1\r\n\r\n", "400"},
	{"two hosts", "GET / HTTP/1.1\r\n" + host + host + "\r\n", "400"},
	{"two spaces", "GET  / HTTP/1.1\r\n" + host + "\r\n", "400"},
	{"a space in the target", "GET /a b HTTP/1.1\r\n" + host + "\r\n", "400"},
	{"a tab", "GET\t/ HTTP/1.1\r\n" + host + "\r\n", "400"},
	{"a method of signs", "G(T / HTTP/1.1\r\n" + host + "\r\n", "400"},
	{"no version", "GET /\r\n" + host + "\r\n", "400"},
	{"a version in small letters", "GET / http/1.1\r\n" + host + "\r\n", "400"},
	{"a version that goes on", "GET / HTTP/1.11\r\n" + host + "\r\n", "400"},
	{"201 headers", "GET / HTTP/1.1\r\n" + host + strings.Repeat("X: y\r\n", 200) + "\r\n", "431"},
}

func TestRequests(t *testing.T) {
	var r Request // used again and again, as on a connection
	for _, c := range requests {
		if got := read(&r, c.text); got != c.want {
			t.Errorf("%s: %s, want %s", c.what, got, c.want)
		}
	}
}

func read(r *Request, text string) string {
	n, err := End([]byte(text), 0)
	if err == nil && n == 0 {
		return "unfinished"
	}
	if err == nil {
		err = r.Parse(text[:n])
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return map[int]string{400: "400", 431: "431", 501: "501"}[e.Status]
	}
	if r.Unusual {
		return "unusual"
	}
	out := r.Method + " " + r.Target + " " + r.Host
	switch {
	case r.Chunked:
		out += " chunked"
	default:
		out += " " + string(AppendLength(nil, r.Length)[len("Content-Length: "):])
	}
	out = strings.TrimSuffix(out, "\r\n")
	if !r.KeepAlive() {
		out += " close"
	}
	return out
}

// bodies is chunked bodies, and what is in them.
var bodies = []struct{ what, text, want string }{
	{"nothing", "0\r\n\r\n", ""},
	{"two chunks", "1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", "abc"},
	{"large and small digits", "00A\r\n0123456789\r\n0\r\n\r\n", "0123456789"},
	{"extensions", "1;a=b;c=\"d\"\r\na\r\n0;x\r\n\r\n", "a"},
	{"a trailer", "1\r\na\r\n0\r\nX: y\r\nZ: \r\n\r\n", "a X=y Z="},
	{"something behind it", "1\r\na\r\n0\r\n\r\nGET /", "a"},
	{"the end is missing", "1\r\na\r\n0\r\n", "unfinished"},
	{"no digit", "\r\n\r\n", "refused"},
	{"no size", ";a\r\na\r\n", "refused"},
	{"a sign", "-1\r\n\r\n", "refused"},
	{"a prefix", "0x1\r\na\r\n", "refused"},
	{"a space after the size", "1 \r\na\r\n0\r\n\r\n", "refused"},
	{"past all", "1000000000000000\r\n", "refused"},
	{"a bare line feed after the size", "1\na\r\n0\r\n\r\n", "refused"},
	{"a bare line feed in an extension", "1;a\nb\r\na\r\n0\r\n\r\n", "refused"},
	{"a carriage return in an extension", "1;a\rb\r\na\r\n", "refused"},
	{"a bare line feed after the data", "1\r\na\n0\r\n\r\n", "refused"},
	{"data that goes on", "1\r\nab\r\n0\r\n\r\n", "refused"},
	{"a bare line feed in the trailer", "0\r\nX: y\n\r\n", "refused"},
	{"a folded trailer", "0\r\nX: y\r\n z\r\n\r\n", "refused"},
	{"a trailer without a colon", "0\r\nX\r\n\r\n", "refused"},
	{"a long trailer", "0\r\n" + strings.Repeat("X: y\r\n", 2000) + "\r\n", "refused"},
	{"a long extension", "1;" + strings.Repeat("x", 20<<10) + "\r\na\r\n0\r\n\r\n", "refused"},
	{"many extensions", strings.Repeat("1;"+strings.Repeat("x", 100)+"\r\na\r\n", 1000) + "0\r\n\r\n", "refused"},
	{"many small chunks", strings.Repeat("1\r\na\r\n", 1000) + "0\r\n\r\n", strings.Repeat("a", 1000)},
}

func TestChunks(t *testing.T) {
	for _, c := range bodies {
		for _, step := range []int{1, 2, 7, 1 << 20} {
			if got, _ := take([]byte(c.text), step); got != c.want {
				t.Errorf("%s, %d at once: %q, want %q", c.what, step, got, c.want)
			}
		}
	}
}

// take reads a chunked body in pieces. rest is what came after it.
func take(p []byte, step int) (text string, rest []byte) {
	var b Body
	b.Begin(0, true)
	var out []byte
	for len(p) > 0 && !b.Done() {
		piece := append([]byte(nil), p[:min(step, len(p))]...)
		n, used, err := b.Take(piece)
		if err != nil {
			return "refused", nil
		}
		out, p = append(out, piece[:n]...), p[used:]
	}
	if !b.Done() {
		return "unfinished", nil
	}
	trailer, err := b.Trailer()
	if err != nil {
		return "refused", nil
	}
	for _, f := range trailer {
		out = append(out, " "+f.Name+"="+f.Value...)
	}
	return string(out), p
}

func TestParsingAllocatesNothing(t *testing.T) {
	const text = "POST /x HTTP/1.1\r\n" + host + "User-Agent: x\r\nAccept: */*\r\nConnection: keep-alive, X-A\r\nTransfer-Encoding: chunked\r\n\r\n"
	var r Request
	var b Body
	chunks, work := []byte("5\r\nhello\r\n0\r\n\r\n"), make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		if r.Parse(text) != nil || !r.Drops("x-a") || r.Drops("accept") {
			t.Fatal("it is not read as it should be")
		}
		b.Begin(0, true)
		if n, _, err := b.Take(work[:copy(work, chunks)]); n != 5 || err != nil || !b.Done() {
			t.Fatal(n, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
