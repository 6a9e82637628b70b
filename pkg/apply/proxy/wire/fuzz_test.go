package wire

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/program/web"
)

// FuzzRequest holds this package against net/http: what is accepted here is
// accepted there, and means the same, head, body, trailer and what comes
// after. net/http may accept more.
func FuzzRequest(f *testing.F) {
	for _, c := range requests {
		f.Add([]byte(c.text+"3\r\nabc\r\n0\r\nX: y\r\n\r\nGET /"), uint8(5))
	}
	for _, c := range bodies {
		f.Add([]byte("POST / HTTP/1.1\r\n"+host+"Transfer-Encoding: chunked\r\n\r\n"+c.text), uint8(3))
	}
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		n, ok := endInSteps(t, data, int(step))
		var r Request
		if !ok || r.Parse(string(data[:n])) != nil || r.Unusual {
			return
		}
		path, _, _ := strings.Cut(r.Target, "?")
		clean, err := web.Clean(path)
		if err != nil {
			return
		}
		if _, ok := web.HostName(r.Host); !ok && r.Host != "" {
			return
		}
		br := bufio.NewReader(bytes.NewReader(data))
		theirs, err := http.ReadRequest(br)
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", data[:n], err)
		}
		same(t, "method", r.Method, theirs.Method)
		same(t, "target", r.Target, theirs.RequestURI)
		same(t, "version", r.Minor, theirs.ProtoMinor)
		same(t, "host", r.Host, theirs.Host)
		same(t, "last of the connection", !r.KeepAlive(), theirs.Close)
		again, err := web.Clean(theirs.URL.EscapedPath())
		same(t, "path", clean, again)
		same(t, "error of the path", err, nil)
		headers(t, r.Fields, theirs.Header, r.Chunked)
		frames(t, r.Length, r.Chunked, theirs.ContentLength, theirs.TransferEncoding)
		body(t, data[n:], r.Length, r.Chunked, int(step), theirs.Body, func() http.Header { return theirs.Trailer }, br)
	})
}

// FuzzResponse does so for answers.
func FuzzResponse(f *testing.F) {
	for _, head := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200\r\n\r\n", "HTTP/1.0 404 Not Found\r\nX: y\r\n\r\nno", "HTTP/1.1 204 \r\nContent-Length: 5\r\n\r\n",
		"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
		"HTTP/1.1 200 OK\r\nConnection: close, x\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 200 OK\nX: y\n\n",
	} {
		f.Add([]byte(head), uint8(4), false)
		f.Add([]byte(head), uint8(4), true)
	}
	for _, c := range bodies {
		f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"+c.text), uint8(3), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, step uint8, head bool) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		n, ok := endInSteps(t, data, int(step))
		var r Response
		if !ok || r.Parse(string(data[:n]), method) != nil {
			return
		}
		br := bufio.NewReader(bytes.NewReader(data))
		theirs, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", data[:n], err)
		}
		defer theirs.Body.Close()
		same(t, "status", r.Status, theirs.StatusCode)
		same(t, "version", r.Minor, theirs.ProtoMinor)
		headers(t, r.Fields, theirs.Header, r.Chunked)
		if r.Bodiless {
			rest, err := io.ReadAll(theirs.Body)
			same(t, "body", string(rest), "")
			same(t, "error of the body", err, nil)
			return
		}
		if r.ToEnd {
			got, _ := io.ReadAll(theirs.Body)
			same(t, "body", string(data[n:]), string(got))
			return
		}
		same(t, "last of the connection", !r.Reusable(), theirs.Close || r.Minor == 0)
		frames(t, r.Length, r.Chunked, theirs.ContentLength, theirs.TransferEncoding)
		body(t, data[n:], r.Length, r.Chunked, int(step), theirs.Body, func() http.Header { return theirs.Trailer }, br)
	})
}

// endInSteps finds the end of the head as it would come in pieces. That may
// refuse sooner, and must agree on the end otherwise.
func endInSteps(t *testing.T, data []byte, step int) (n int, ok bool) {
	t.Helper()
	whole, err := End(data, 0)
	seen := 0
	for seen < len(data) {
		next := min(seen+1+step, len(data))
		n, stepErr := End(data[:next], seen)
		if stepErr != nil {
			var r Request
			var a Response
			if err == nil && whole > 0 && (r.Parse(string(data[:whole])) == nil && !r.Unusual || a.Parse(string(data[:whole]), "GET") == nil) {
				t.Fatalf("%q is refused in pieces: %v", data[:whole], stepErr)
			}
			return 0, false
		}
		if n > 0 {
			same(t, "end of the head", n, whole)
			return n, err == nil
		}
		seen = next
	}
	return 0, false
}

func same[T comparable](t *testing.T, what string, ours, theirs T) {
	t.Helper()
	if ours != theirs {
		t.Fatalf("%s: %v here, %v there", what, ours, theirs)
	}
}

// headers compares all that net/http leaves in place.
func headers(t *testing.T, ours []Field, theirs http.Header, chunked bool) {
	t.Helper()
	h := http.Header{}
	for _, f := range ours {
		h.Add(f.Name, f.Value)
	}
	for _, name := range []string{"Host", "Transfer-Encoding"} {
		delete(h, name)
	}
	if chunked {
		delete(h, "Trailer")
	}
	theirs = maps.Clone(theirs)
	if theirs["Connection"] == nil {
		delete(h, "Connection") // it takes "close" as read
	}
	// It adds what an old Pragma means.
	if h.Get("Pragma") == "no-cache" {
		delete(h, "Cache-Control")
		delete(theirs, "Cache-Control")
	}
	if !maps.EqualFunc(h, theirs, slices.Equal) {
		t.Fatalf("headers: %v here, %v there", h, theirs)
	}
}

func frames(t *testing.T, length int64, chunked bool, theirLength int64, coding []string) {
	t.Helper()
	if chunked {
		length = -1
	}
	same(t, "length", length, theirLength)
	same(t, "coding", chunked, slices.Equal(coding, []string{"chunked"}))
}

// body compares a body and its trailer, if all of it is there, and where the
// next message begins.
func body(t *testing.T, data []byte, length int64, chunked bool, step int, theirs io.Reader, trailer func() http.Header, after io.Reader) {
	t.Helper()
	var got string
	var rest []byte
	switch {
	case chunked:
		if got, rest = take(data, 1+step); got == "refused" || got == "unfinished" {
			return
		}
	case length > int64(len(data)):
		return
	default:
		got, rest = string(data[:length]), data[length:]
	}
	b, err := io.ReadAll(theirs)
	if err != nil {
		t.Fatalf("net/http refuses the body %q: %v", data, err)
	}
	if chunked {
		var fields []string
		for name, values := range trailer() {
			for _, v := range values {
				fields = append(fields, fmt.Sprintf(" %s=%s", name, v))
			}
		}
		// Names are written in one way there, and stand in no order.
		ours := strings.ToLower(strings.TrimPrefix(got, string(b)))
		for _, f := range fields {
			if !strings.Contains(ours, strings.ToLower(f)) {
				t.Fatalf("trailer %q: not %q", ours, f)
			}
		}
		same(t, "data", strings.HasPrefix(got, string(b)), true)
	} else {
		same(t, "body", got, string(b))
	}
	next, _ := io.ReadAll(after)
	same(t, "what comes next", string(rest), string(next))
}
