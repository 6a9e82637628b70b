package upstream

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/link"
)

// script is a server that answers every request with the same bytes, and
// closes the connection where they are "close".
func script(t *testing.T, answer string) (s simple, connections *atomic.Int64) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	connections = new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			go func() {
				defer c.Close()
				br := bufio.NewReader(c)
				for {
					if _, err := http.ReadRequest(br); err != nil {
						return
					}
					text, end := strings.CutSuffix(answer, "close")
					io.WriteString(c, text)
					if end {
						return
					}
				}
			}()
		}
	}()
	return simple{&link.Pool{Address: l.Addr().String()}}, connections
}

func ask(t *testing.T, s simple, method string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://example.com/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := s.RoundTrip(req, nil, nil)
	if err != nil {
		return nil, "", err
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	return resp, string(b), err
}

func TestSimpleKeepsConnections(t *testing.T) {
	for _, c := range []struct {
		answer, method, body string
		reused               bool
	}{
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "GET", "hi", true},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "GET", "hi", true},
		{"HTTP/1.1 204 No Content\r\n\r\n", "GET", "", true},
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "HEAD", "", true},
		{"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "GET", "hi", true},
		{"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", "GET", "hi", false},
		{"HTTP/1.0 200 OK\r\n\r\nhiclose", "GET", "hi", false},
		{"HTTP/1.1 200 OK\r\n\r\nhiclose", "GET", "hi", false},
		// More than the answer: whose would it be?
		{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n\r\n", "GET", "hi", false},
	} {
		s, connections := script(t, c.answer)
		for range 3 {
			if _, body, err := ask(t, s, c.method); err != nil || body != c.body {
				t.Errorf("%q: %q %v", c.answer, body, err)
			}
		}
		if n := connections.Load(); (n == 1) != c.reused {
			t.Errorf("%q: %d connections", c.answer, n)
		}
	}
}

func TestSimpleRefuses(t *testing.T) {
	for _, answer := range []string{
		"close", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhiclose", "nonsense\r\n\r\nclose",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: cow\r\n\r\nhi", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", MaxAnswerHeader+10) + "\r\n\r\n",
	} {
		s, _ := script(t, answer)
		if _, body, err := ask(t, s, "GET"); err == nil {
			t.Errorf("%.60q: %q", answer, body)
		}
		if s.pool.Size() != 0 {
			t.Errorf("%.60q: the connection was kept", answer)
		}
	}
}

// TestSimpleStaleConnections has the server close connections while idle.
func TestSimpleStaleConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hi") }), IdleTimeout: time.Millisecond}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	s := simple{&link.Pool{Address: l.Addr().String()}}
	for range 200 {
		if _, body, err := ask(t, s, "GET"); err != nil || body != "hi" {
			t.Fatal(body, err)
		}
		if rest := time.Now().UnixNano() % 3; rest > 0 {
			time.Sleep(time.Duration(rest) * time.Millisecond)
		}
	}
	s.pool.Close()
	ask(t, s, "GET")
	if s.pool.Size() != 0 {
		t.Error("a connection was kept after the endpoint was given up")
	}
}

func TestSimpleWritesOnlyWhatItWasGiven(t *testing.T) {
	for _, change := range []func(*http.Request){
		func(r *http.Request) { r.Host = "a b" },
		func(r *http.Request) { r.Host = "a\r\nX: y" },
		func(r *http.Request) { r.Header["X-A"] = []string{"b\r\nX-C: d"} },
		func(r *http.Request) { r.Header["X-A: b\r\nX-C"] = []string{"d"} },
		func(r *http.Request) { r.Method = "GET / HTTP/1.1\r\nX:" },
	} {
		s, _ := script(t, "HTTP/1.1 204 No Content\r\n\r\n")
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://example.com/", nil)
		change(req)
		if _, err := s.RoundTrip(req, nil, nil); err == nil {
			t.Errorf("%+v was sent", req.Header)
		}
	}
}
