package proxy

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/program/web"
)

// hangUp is a back end that reads a request and ends the connection without
// an answer. It counts what it was sent.
func hangUp(t *testing.T) (address string, seen *atomic.Int64) {
	t.Helper()
	l := listenLocal(t)
	t.Cleanup(func() { l.Close() })
	seen = new(atomic.Int64)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if r, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					io.Copy(io.Discard, r.Body)
					seen.Add(1)
				}
			}()
		}
	}()
	return l.Addr().String(), seen
}

func TestRetries(t *testing.T) { engines(t, testRetries) }

func testRetries(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	var served atomic.Int64
	good := server(t, func(w http.ResponseWriter, r *http.Request) { served.Add(1); echo(w, r) })
	refusing := listenLocal(t)
	refusing.Close()
	send := func(method, body string) int {
		var reader io.Reader
		if body != "" {
			reader = strings.NewReader(body)
		}
		req, _ := http.NewRequest(method, "http://example.com/", reader)
		resp, err := f.client("http/1.1").Do(req)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp.StatusCode
	}
	// Refused connections harm nobody: nothing was sent yet.
	for range 20 {
		f.route(web.Options{}, refusing.Addr().String(), good)
		for _, c := range [][2]string{{"GET", ""}, {"POST", "body"}, {"DELETE", ""}} {
			if status := send(c[0], c[1]); status != 200 {
				t.Fatalf("%s: %d", c[0], status)
			}
		}
	}
	// An endpoint that took the request may have acted on it.
	for _, c := range []struct {
		method, body string
		repeated     bool
	}{{"GET", "", true}, {"HEAD", "", true}, {"OPTIONS", "", true}, {"POST", "body", false}, {"POST", "", false}, {"PUT", "body", false}, {"DELETE", "", false}} {
		bad, seen := hangUp(t)
		failures := 0
		for range 30 {
			served.Store(0)
			before := seen.Load()
			f.route(web.Options{}, bad, good)
			switch status := send(c.method, c.body); status {
			case 200:
			case 502:
				failures++
			default:
				t.Fatalf("%s: %d", c.method, status)
			}
			if sent := seen.Load() - before + served.Load(); !c.repeated && sent != 1 {
				t.Errorf("%s was sent %d times", c.method, sent)
			}
		}
		if c.repeated == (failures > 0) {
			t.Errorf("%s: %d of 30 failed", c.method, failures)
		}
	}
}

func TestLeastLoaded(t *testing.T) { engines(t, testLeastLoaded) }

func testLeastLoaded(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	var fast, slow atomic.Int64
	release := make(chan bool)
	t.Cleanup(func() { close(release) })
	quick := server(t, func(http.ResponseWriter, *http.Request) { fast.Add(1) })
	stuck := server(t, func(http.ResponseWriter, *http.Request) { slow.Add(1); <-release })
	f.route(web.Options{}, quick, stuck)
	client := f.client("http/1.1")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 25 {
				ask, _ := http.NewRequest("GET", "http://example.com/", nil)
				done := make(chan bool)
				go func() {
					if resp, err := client.Do(ask); err == nil {
						resp.Body.Close()
					}
					close(done)
				}()
				select {
				case <-done:
				case <-time.After(20 * time.Millisecond):
				}
			}
		})
	}
	wg.Wait()
	if fast.Load() < 5*slow.Load() {
		t.Errorf("%d requests to the quick one, %d to the stuck one", fast.Load(), slow.Load())
	}
}

// TestConnectionsAreReused counts what a back end accepts.
func TestConnectionsAreReused(t *testing.T) { engines(t, testConnectionsAreReused) }

func testConnectionsAreReused(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	var opened atomic.Int64
	l := listenLocal(t)
	s := &http.Server{Handler: http.HandlerFunc(echo), ConnState: func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			opened.Add(1)
		}
	}}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	for range 5 {
		f.route(web.Options{}, l.Addr().String()) // a new program changes nothing
		for range 20 {
			f.get("GET /")
		}
	}
	if n := opened.Load(); n > 3 {
		t.Errorf("%d connections for 100 requests one after the other", n)
	}
	if f.Endpoints() != 1 {
		t.Errorf("%d endpoints", f.Endpoints())
	}
	f.Set(&web.Program{})
	if f.Endpoints() != 0 {
		t.Errorf("%d endpoints are left", f.Endpoints())
	}
}
