package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"

	"poplin.dev/poplin/pkg/program/web"
	"poplin.dev/poplin/test/hostile"
)

// count is how many of something a test makes: all of them where the
// environment asks for a soak.
func count(short, full int) int {
	if os.Getenv("POPLIN_SOAK") != "" {
		return full
	}
	return short
}

// TestHostileInput sends every row of test/hostile.
func TestHostileInput(t *testing.T) { engines(t, testHostileInput) }

func testHostileInput(t *testing.T, e engineName) {
	t.Parallel()
	f := run(t, e, Config{})
	spy := new(hostile.Spy)
	p, r := f.program(web.Options{}, web.HTTP, server(t, spy.ServeHTTP))
	p.Hosts[hostile.Guarded] = &web.Host{Name: hostile.Guarded, Prefix: map[string]*web.Route{"/public": r}, Depth: 1}
	f.Set(p)
	attack := hostile.Proxy{Spy: spy, Wide: e == netHTTP, Dial: map[string]func() (net.Conn, error){
		"plain": func() (net.Conn, error) { return net.Dial("tcp", f.plain) },
		"TLS": func() (net.Conn, error) {
			return tls.Dial("tcp", f.secure, &tls.Config{InsecureSkipVerify: true, ServerName: "example.com"})
		},
	}}
	_, wrong := attack.Attack()
	for _, w := range wrong {
		t.Error(w)
	}
}

func TestChunkExtensionsAreDropped(t *testing.T) { engines(t, testChunkExtensionsAreDropped) }

func testChunkExtensionsAreDropped(t *testing.T, e engineName) {
	t.Parallel()
	f := run(t, e, Config{})
	l := listenLocal(t)
	defer l.Close()
	wire := make(chan string, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		b, _ := io.ReadAll(c)
		wire <- string(b)
	}()
	f.route(web.Options{}, l.Addr().String())
	f.raw("POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n1;evil=\"x\"\r\nA\r\n0;more\r\nX-Trailer: y\r\n\r\n")
	if got := <-wire; strings.Contains(got, "evil") || strings.Contains(got, "more") || !strings.Contains(got, "1\r\nA\r\n0\r\n") {
		t.Errorf("%q", got)
	}
}

func TestHeaderLimits(t *testing.T) { engines(t, testHeaderLimits) }

func testHeaderLimits(t *testing.T, e engineName) {
	t.Parallel()
	f := run(t, e, Config{HeaderBytes: 16 << 10})
	f.route(web.Options{}, server(t, echo))
	big := strings.Repeat("x", 30<<10)
	for what, request := range map[string]string{
		"one header":   "GET / HTTP/1.1\r\nHost: example.com\r\nX-A: " + big + "\r\n\r\n",
		"many headers": "GET / HTTP/1.1\r\nHost: example.com\r\n" + strings.Repeat("X-A: y\r\n", 5000) + "\r\n",
		"the path":     "GET /" + big + " HTTP/1.1\r\nHost: example.com\r\n\r\n",
	} {
		if got := statuses(f.raw(request)); got != "431" {
			t.Errorf("%s: %s", what, got)
		}
	}
	resp, err := f.client("h2").Do(&http.Request{Method: "GET", URL: mustURL("https://example.com/"), Header: http.Header{"X-A": {big}}})
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode != 431 {
			t.Errorf("HTTP/2: %d", resp.StatusCode)
		}
	}
}

// TestSlowHeaders holds connections that never finish a header: each is cut
// in time, and others are served meanwhile.
func TestSlowHeaders(t *testing.T) { engines(t, testSlowHeaders) }

func testSlowHeaders(t *testing.T, e engineName) {
	t.Parallel()
	f := run(t, e, Config{HeaderTime: 300 * time.Millisecond, IdleTime: 300 * time.Millisecond})
	f.route(web.Options{}, server(t, echo))
	for _, start := range []string{"", "GET / HT", "GET / HTTP/1.1\r\nHost: example.com\r\nX-A:", "PRI * HTTP/2.0\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
		for name, address := range map[string]string{"plain": f.plain, "TLS": f.secure} {
			c, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			io.WriteString(c, start)
			c.SetReadDeadline(time.Now().Add(10 * time.Second))
			if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
				t.Errorf("%s, %q: still open after 10 s", name, start)
			}
			if status, _, _ := f.get("GET /"); status != 200 {
				t.Errorf("%s, %q: others get %d", name, start, status)
			}
		}
	}
}

// TestSlowBodies holds connections that never finish a body.
func TestSlowBodies(t *testing.T) { engines(t, testSlowBodies) }

func testSlowBodies(t *testing.T, e engineName) {
	t.Parallel()
	f := run(t, e, Config{BodyTime: 300 * time.Millisecond})
	f.route(web.Options{}, server(t, echo))
	var conns []net.Conn
	for i := range 100 {
		c := f.dial(i%2 == 1)
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: example.com\r\n"+[]string{"Content-Length: 1000\r\n\r\nx", "Transfer-Encoding: chunked\r\n\r\n5\r\nx"}[i/2%2])
		conns = append(conns, c)
	}
	for range 20 {
		if status, _, _ := f.get("GET /"); status != 200 {
			t.Errorf("others get %d", status)
		}
	}
	for _, c := range conns {
		if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Error("a body that does not come holds its connection")
		}
	}
	eventually(t, "nothing is under way", func() bool { return f.Active() == 0 })
}

func TestIdleConnections(t *testing.T) { engines(t, testIdleConnections) }

func testIdleConnections(t *testing.T, e engineName) {
	n := count(1000, 10000)
	// Both ends of every connection are this process'.
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	if most := int(files.Cur/2) - 100; n > most {
		t.Logf("%d connections instead of %d: `ulimit -n` is %d", most, n, files.Cur)
		n = most
	}
	f := run(t, e, Config{})
	f.route(web.Options{}, server(t, echo))
	before := heap()
	conns := make([]net.Conn, 0, n)
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range n {
		c, err := net.Dial("tcp", f.plain)
		if err != nil {
			t.Fatalf("connection %d: %v", len(conns), err)
		}
		conns = append(conns, c)
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
	}
	each := (heap() - before) / n
	t.Logf("%d bytes for each idle connection, the test's end of it included", each)
	if each > 64<<10 {
		t.Errorf("%d bytes for each of %d idle connections", each, n)
	}
	if status, _, _ := f.get("GET /"); status != 200 {
		t.Errorf("others get %d", status)
	}
}

// heap is what the process holds, stacks included.
func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapInuse + m.StackInuse)
}

// h2conn speaks HTTP/2 frame by frame.
type h2conn struct {
	net.Conn
	hpack bytes.Buffer
	enc   *hpack.Encoder
}

func (f *fixture) h2conn() *h2conn {
	f.t.Helper()
	c := f.h2dial()
	go io.Copy(io.Discard, c)
	return f.h2greet(c)
}

func (f *fixture) h2dial() net.Conn {
	f.t.Helper()
	c, err := tls.Dial("tcp", f.secure, &tls.Config{InsecureSkipVerify: true, ServerName: "example.com", NextProtos: []string{"h2"}})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	return c
}

// h2greet begins HTTP/2.
func (f *fixture) h2greet(c net.Conn) *h2conn {
	h := &h2conn{Conn: c}
	h.enc = hpack.NewEncoder(&h.hpack)
	io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	h.frame(4, 0, 0, nil)
	return h
}

func (h *h2conn) frame(kind, flags byte, stream uint32, payload []byte) error {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	b = binary.BigEndian.AppendUint32(b, stream)
	_, err := h.Write(append(b, payload...))
	return err
}

// endless asks for one answer, of which the proxy may send as much as it likes.
func (h *h2conn) endless() {
	h.frame(4, 0, 0, []byte{0, 4, 0x7f, 0xff, 0xff, 0xff})
	h.frame(8, 0, 0, []byte{0x7f, 0, 0, 0})
	h.frame(1, 4|1, 1, h.request())
}

func (h *h2conn) request() []byte {
	h.hpack.Reset()
	for _, kv := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "example.com"}, {":path", "/"}} {
		h.enc.WriteField(hpack.HeaderField{Name: kv[0], Value: kv[1]})
	}
	return h.hpack.Bytes()
}

// TestClientsThatDoNotRead asks for a body without end, and takes none of it,
// on a connection that has just been made: each is cut in time.
func TestClientsThatDoNotRead(t *testing.T) { engines(t, testClientsThatDoNotRead) }

func testClientsThatDoNotRead(t *testing.T, e engineName) {
	t.Parallel()
	f := run(t, e, Config{WriteTime: time.Second})
	f.route(web.Options{}, server(t, func(w http.ResponseWriter, r *http.Request) {
		for piece := make([]byte, 64<<10); r.Context().Err() == nil; {
			if _, err := w.Write(piece); err != nil {
				return
			}
		}
	}))
	for what, ask := range map[string]func(){
		"HTTP/1.1": func() { io.WriteString(f.dial(false), "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n") },
		"HTTPS":    func() { io.WriteString(f.dial(true), "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n") },
		"h2c":      func() { f.h2greet(f.dial(false)).endless() },
		"HTTP/2":   func() { f.h2greet(f.h2dial()).endless() },
	} {
		ask()
		eventually(t, what+": it is under way", func() bool { return f.Active() == 1 })
		eventually(t, what+": it is cut", func() bool { return f.Active() == 0 })
	}
}

// TestHTTP2Floods sends what has taken servers down: streams opened and reset
// at once, and a header section without end. The connection may end; memory
// stays bounded and others are served.
func TestHTTP2Floods(t *testing.T) { engines(t, testHTTP2Floods) }

func testHTTP2Floods(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	release := make(chan bool)
	back := server(t, func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthy" {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
	})
	t.Cleanup(func() { close(release) })
	f.route(web.Options{}, back)
	n := count(5000, 100000)
	for name, flood := range map[string]func(*h2conn) error{
		"rapid reset": func(h *h2conn) error {
			for i := range uint32(n) {
				if err := h.frame(1, 4|1, 2*i+1, h.request()); err != nil {
					return err
				}
				if err := h.frame(3, 0, 2*i+1, []byte{0, 0, 0, 8}); err != nil {
					return err
				}
			}
			return nil
		},
		"continuation": func(h *h2conn) error {
			if err := h.frame(1, 1, 1, h.request()); err != nil {
				return err
			}
			filler := append([]byte{0, 1, 'x', 127, 0x81, 0x7f}, bytes.Repeat([]byte("y"), 16<<10)...)[:16<<10]
			for range n {
				if err := h.frame(9, 0, 1, filler); err != nil {
					return err
				}
			}
			return nil
		},
		"settings and pings": func(h *h2conn) error {
			for range n {
				if err := h.frame(4, 0, 0, nil); err != nil {
					return err
				}
				if err := h.frame(6, 0, 0, make([]byte, 8)); err != nil {
					return err
				}
			}
			return nil
		},
	} {
		before := heap()
		h := f.h2conn()
		ended := make(chan error, 1)
		go func() { ended <- flood(h) }()
		for range 20 {
			if status, _, _ := f.get("GET /healthy"); status != 200 {
				t.Errorf("%s: others get %d", name, status)
			}
		}
		err := <-ended
		if name == "continuation" && err == nil {
			t.Errorf("%s: %d frames were taken", name, n)
		}
		grown := heap() - before
		t.Logf("%s: %v; %d kB more in use", name, err, grown>>10)
		if grown > 64<<20 {
			t.Errorf("%s: %d MB more in use", name, grown>>20)
		}
		h.Close()
		eventually(t, name+" leaves nothing behind", func() bool { return f.Active() == 0 })
	}
}
