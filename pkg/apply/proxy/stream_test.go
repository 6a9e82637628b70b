package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/program/web"
)

// shout is a back end that upgrades to what the client asks for and answers
// each line in upper case.
func shout(t *testing.T) string {
	return server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			io.WriteString(w, "no upgrade asked for")
			return
		}
		c, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
		for {
			line, err := rw.ReadString('\n')
			if err != nil {
				return
			}
			io.WriteString(c, strings.ToUpper(line))
		}
	})
}

// tunnel is an open WebSocket, as far as a proxy is concerned.
type tunnel struct {
	net.Conn
	br *bufio.Reader
}

func (f *fixture) upgrade(headers string) (*tunnel, *http.Response) {
	f.t.Helper()
	c, err := net.Dial("tcp", f.plain)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: example.com\r\n%s\r\n", headers)
	w := &tunnel{c, bufio.NewReader(c)}
	resp, err := http.ReadResponse(w.br, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return w, resp
}

func (w *tunnel) say(line string) (string, error) {
	if _, err := io.WriteString(w, line+"\n"); err != nil {
		return "", err
	}
	w.SetReadDeadline(time.Now().Add(10 * time.Second))
	return w.br.ReadString('\n')
}

const webSocket = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: x\r\n"

func TestWebSocket(t *testing.T) { engines(t, testWebSocket) }

func testWebSocket(t *testing.T, e engineName) {
	t.Parallel()
	f := run(t, e, Config{ReadTime: 100 * time.Millisecond})
	f.route(web.Options{}, shout(t))
	w, resp := f.upgrade(webSocket)
	if resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	time.Sleep(250 * time.Millisecond) // longer than an answer may take
	for range 100 {
		if got, err := w.say("hello"); got != "HELLO\n" {
			t.Fatal(got, err)
		}
	}
	w.Close()
	eventually(t, "the tunnel ends with its client", func() bool { return f.Active() == 0 })
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.records[0]; r.Status != 101 {
		t.Errorf("%+v", r)
	}
}

func TestOnlyWebSocketUpgrades(t *testing.T) { engines(t, testOnlyWebSocketUpgrades) }

func testOnlyWebSocketUpgrades(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	f.route(web.Options{}, shout(t))
	for _, headers := range []string{
		"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
		"Connection: Upgrade\r\nUpgrade: h2c\r\n",
		"Connection: Upgrade\r\nUpgrade: tcp\r\n",
		"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
		"Upgrade: websocket\r\n",
	} {
		if _, resp := f.upgrade(headers); resp.StatusCode != 200 {
			t.Errorf("%q: %s", headers, resp.Status)
		}
	}
}

func TestServerSentEventsAreNotHeldBack(t *testing.T) { engines(t, testServerSentEventsAreNotHeldBack) }

func testServerSentEventsAreNotHeldBack(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	next := make(chan bool)
	f.route(web.Options{}, server(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	}))
	for _, protocol := range []string{"http/1.1", "h2"} {
		resp, err := f.client(protocol).Get(scheme(protocol) + "example.com/")
		if err != nil {
			t.Fatal(err)
		}
		br := bufio.NewReader(resp.Body)
		for i := range 3 {
			if line, err := br.ReadString('\n'); line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("%s: %q %v", protocol, line, err)
			}
			br.ReadString('\n')
			next <- true
		}
		resp.Body.Close()
	}
}

// grpcCall opens a bidirectional stream as gRPC does, without its library.
func (f *fixture) grpcCall(t *testing.T) (send func(string) (string, error), end func() (trailer http.Header)) {
	t.Helper()
	r, w := io.Pipe()
	req, _ := http.NewRequest("POST", "https://example.com/pkg.Service/Chat", r)
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	client := f.client("h2")
	client.Timeout = 0
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(resp.Body)
	send = func(line string) (string, error) {
		if _, err := io.WriteString(w, line+"\n"); err != nil {
			return "", err
		}
		return br.ReadString('\n')
	}
	end = func() http.Header {
		w.Close()
		io.Copy(io.Discard, br)
		return resp.Trailer
	}
	return send, end
}

// chat is a gRPC-like back end.
func chat(t *testing.T) string {
	return server(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		for br := bufio.NewReader(r.Body); ; {
			line, err := br.ReadString('\n')
			if err != nil {
				break
			}
			io.WriteString(w, strings.ToUpper(line))
			w.(http.Flusher).Flush()
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "unannounced")
	})
}

func TestGRPCStreamAndTrailers(t *testing.T) { engines(t, testGRPCStreamAndTrailers) }

func testGRPCStreamAndTrailers(t *testing.T, e engineName) {
	t.Parallel()
	f := run(t, e, Config{ReadTime: 100 * time.Millisecond})
	f.routeAs(web.Options{}, web.H2C, chat(t))
	send, end := f.grpcCall(t)
	for i := range 5 {
		if got, err := send("hello"); got != "HELLO\n" {
			t.Fatal(i, got, err)
		}
		if i == 2 {
			time.Sleep(250 * time.Millisecond) // longer than an answer may take
		}
	}
	if trailer := end(); trailer.Get("Grpc-Status") != "0" || trailer.Get("Grpc-Message") != "unannounced" {
		t.Errorf("trailer %v", trailer)
	}
}

// load sends requests until told to stop, and counts.
type load struct {
	sent, failed atomic.Int64
	first        atomic.Value
	wg           sync.WaitGroup
	stop         context.CancelFunc
}

func (f *fixture) load(clients map[string]int) *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{stop: stop}
	for protocol, n := range clients {
		client := f.client(protocol)
		for range n {
			l.wg.Go(func() {
				for ctx.Err() == nil {
					resp, err := client.Get(scheme(protocol) + "example.com/x")
					if err == nil {
						_, err = io.Copy(io.Discard, resp.Body)
						resp.Body.Close()
						if err == nil && resp.StatusCode != 200 {
							err = errors.New(resp.Status)
						}
					}
					l.sent.Add(1)
					if err != nil {
						l.failed.Add(1)
						l.first.CompareAndSwap(nil, protocol+": "+err.Error())
					}
				}
			})
		}
	}
	f.t.Cleanup(stop)
	return l
}

func (l *load) end(t *testing.T) {
	t.Helper()
	l.stop()
	l.wg.Wait()
	if l.failed.Load() > 0 || l.sent.Load() < 100 {
		t.Errorf("%d of %d requests failed, the first: %v", l.failed.Load(), l.sent.Load(), l.first.Load())
	}
}

// TestChangesFailNothing changes routes, endpoints and certificates under
// requests of every kind.
func TestChangesFailNothing(t *testing.T) { engines(t, testChangesFailNothing) }

func testChangesFailNothing(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	backs := []string{server(t, echo), server(t, echo), server(t, echo)}
	ws, grpc := shout(t), chat(t)
	set := func(n int) {
		p, r := f.program(web.Options{HSTS: fmt.Sprintf("max-age=%d", n)}, web.HTTP, backs[n%3], backs[(n+1)%3])
		for path, to := range map[string]string{"/ws": ws, "/pkg.Service/Chat": grpc} {
			route := *r
			route.Backend.Port = path
			b := *p.Backends[r.Backend]
			b.ID, b.Ready = route.Backend, nil
			b.Ready = append(b.Ready, mustAddrPort(to))
			if path != "/ws" {
				b.Protocol = web.H2C
			}
			p.Hosts["example.com"].Prefix[path] = &route
			p.Hosts["example.com"].Depth = 2
			p.Backends[route.Backend] = &b
		}
		f.Set(p)
	}
	set(0)
	w, resp := f.upgrade(webSocket)
	if resp.StatusCode != 101 {
		t.Fatal(resp.Status)
	}
	send, end := f.grpcCall(t)
	l := f.load(map[string]int{"http/1.1": 2, "h2": 2, "https": 1})
	for n := 0; n < count(100, 1000) || l.sent.Load() < 200; n++ {
		set(n)
		if n%10 == 0 {
			if got, err := w.say("hello"); got != "HELLO\n" {
				t.Fatal("WebSocket:", got, err)
			}
			if got, err := send("hello"); got != "HELLO\n" {
				t.Fatal("gRPC:", got, err)
			}
		}
	}
	l.end(t)
	end()
}

// TestDrain ends a proxy under load: nothing that was begun fails, streams
// get their time, and clients are asked to leave before the listener closes.
func TestDrain(t *testing.T) { engines(t, testDrain) }

func testDrain(t *testing.T, e engineName) {
	t.Parallel()
	f := run(t, e, Config{Withdraw: 300 * time.Millisecond, Drain: 5 * time.Second})
	slow := make(chan bool)
	back := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			io.WriteString(w, "begun ")
			w.(http.Flusher).Flush()
			<-slow
			io.WriteString(w, "and done")
			return
		}
		echo(w, r)
	})
	f.route(web.Options{}, back)
	type answer struct {
		body string
		err  error
	}
	answers := make(chan answer, 2)
	for _, protocol := range []string{"http/1.1", "h2"} {
		resp, err := f.client(protocol).Get(scheme(protocol) + "example.com/slow")
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			b, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			answers <- answer{string(b), err}
		}()
	}
	l := f.load(map[string]int{"http/1.1": 2, "h2": 2})
	eventually(t, "the load is under way", func() bool { return l.sent.Load() > 200 })
	ended := make(chan error, 1)
	go func() { ended <- f.stop() }()
	eventually(t, "answers ask clients to leave", func() bool {
		resp, err := f.client("http/1.1").Get("http://example.com/")
		if err != nil {
			t.Fatal("refused while it should still be served: ", err)
		}
		resp.Body.Close()
		return resp.Close
	})
	l.end(t)
	eventually(t, "the listener closes", func() bool {
		c, err := net.Dial("tcp", f.plain)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(slow)
	for range 2 {
		if a := <-answers; a.err != nil || a.body != "begun and done" {
			t.Errorf("%q %v", a.body, a.err)
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestDrainTimeEndsTunnels(t *testing.T) { engines(t, testDrainTimeEndsTunnels) }

func testDrainTimeEndsTunnels(t *testing.T, e engineName) {
	t.Parallel()
	f := run(t, e, Config{Drain: 300 * time.Millisecond})
	f.route(web.Options{}, shout(t))
	w, _ := f.upgrade(webSocket)
	ended := make(chan error, 1)
	go func() { ended <- f.stop() }()
	eventually(t, "the listener closes", func() bool {
		c, err := net.Dial("tcp", f.plain)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if got, err := w.say("still here"); got != "STILL HERE\n" {
		t.Error(got, err)
	}
	<-ended
	eventually(t, "the tunnel is cut", func() bool { _, err := w.say("x"); return err != nil })
}

// TestInformationalAnswers sends early hints with and without a body in the
// request: they take different ways.
func TestInformationalAnswers(t *testing.T) { engines(t, testInformationalAnswers) }

func testInformationalAnswers(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	f.route(web.Options{}, server(t, func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Link", "</style.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("X-Final", "1")
		io.WriteString(w, "done")
	}))
	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
	} {
		got := f.raw(request)
		early, final, _ := strings.Cut(got, "\r\n\r\n")
		if !strings.HasPrefix(early, "HTTP/1.1 103 Early Hints\r\nLink: ") || !strings.HasPrefix(final, "HTTP/1.1 200 OK\r\n") || !strings.Contains(final, "X-Final: 1\r\n") || !strings.HasSuffix(final, "done") {
			t.Errorf("%q: %q", request, got)
		}
	}
}

// countedListener counts the writes on its connections.
type countedListener struct {
	net.Listener
	writes *atomic.Int64
}

func (l countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return countedConn{c, l.writes}, err
}

type countedConn struct {
	net.Conn
	writes *atomic.Int64
}

func (c countedConn) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// TestAnswersShareWrites has streams of one HTTP/2 connection answered at once
// by one core: most share a system call, which is the dearest part of a small
// answer.
func TestAnswersShareWrites(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	f := run(t, own, Config{})
	program, _ := f.program(web.Options{}, web.HTTP, server(t, echo))
	for protocol, listener := range map[string]*string{"h2": &f.secure, "h2c": &f.plain} {
		writes := new(atomic.Int64)
		l := countedListener{listenLocal(t), writes}
		p := New(Config{})
		p.Set(program)
		ended := make(chan error, 1)
		ctx, stop := context.WithCancel(t.Context())
		go func() {
			if protocol == "h2" {
				ended <- p.Serve(ctx, nil, l)
			} else {
				ended <- p.Serve(ctx, l, nil)
			}
		}()
		*listener = l.Addr().String()
		client := f.client(protocol)
		const streams, each = 32, 30
		var wg sync.WaitGroup
		for range streams {
			wg.Go(func() {
				for range each {
					resp, err := client.Get(scheme(protocol) + "example.com/")
					if err != nil {
						t.Error(err)
						return
					}
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			})
		}
		wg.Wait()
		n := writes.Load()
		t.Logf("%s: %d writes for %d answers", protocol, n, streams*each)
		if n > streams*each*3/4 {
			t.Errorf("%s: %d writes for %d answers", protocol, n, streams*each)
		}
		client.CloseIdleConnections()
		stop()
		<-ended
	}
}
