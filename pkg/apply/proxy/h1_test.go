package proxy

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/program/web"
)

// dial opens a connection to the proxy, encrypted or not.
func (f *fixture) dial(secure bool) net.Conn {
	f.t.Helper()
	c, err := net.Dial("tcp", f.plain)
	if secure {
		c, err = tls.Dial("tcp", f.secure, &tls.Config{InsecureSkipVerify: true, ServerName: "example.com"})
	}
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// TestHandOver sends what needs the full engine and what does not over one
// connection, in both orders and in one piece.
func TestHandOver(t *testing.T) {
	f := run(t, own, Config{})
	p, r := f.program(web.Options{}, web.HTTP, server(t, echo))
	guarded := *r
	guarded.Options = &web.Options{CORS: &web.CORS{Any: true}}
	p.Hosts["example.com"].Prefix["/guarded"], p.Hosts["example.com"].Depth = &guarded, 1
	f.Set(p)
	const request = "POST /%s HTTP/1.1\r\nHost: example.com\r\nOrigin: https://a.com\r\nContent-Length: 4\r\n\r\nbody"
	for _, secure := range []bool{false, true} {
		c := f.dial(secure)
		var all string
		paths := []string{"a", "guarded", "b", "guarded"}
		for _, path := range paths {
			all += fmt.Sprintf(request, path)
		}
		io.WriteString(c, all)
		br := bufio.NewReader(c)
		for _, path := range paths {
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(secure, path, err)
			}
			b, _ := io.ReadAll(resp.Body)
			proto := "X-Forwarded-Proto: http\r\n"
			if secure {
				proto = "X-Forwarded-Proto: https\r\n"
			}
			if got := string(b); !strings.HasPrefix(got, "POST /"+path+"\n") || !strings.HasSuffix(got, "body") || !strings.Contains(got, proto) {
				t.Errorf("%v %s: %s", secure, path, got)
			}
			if (resp.Header.Get("Access-Control-Allow-Origin") != "") != (path == "guarded") {
				t.Errorf("%v %s: %v", secure, path, resp.Header)
			}
		}
	}
}

// TestOldClients speaks HTTP/1.0: no chunks, and a connection that ends where
// the client does not ask for more.
func TestOldClients(t *testing.T) {
	f := run(t, own, Config{})
	f.route(web.Options{}, server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			for range 3 {
				io.WriteString(w, "part ")
				w.(http.Flusher).Flush()
			}
			return
		}
		io.WriteString(w, "hello")
	}))
	for _, c := range []struct{ send, want string }{
		{"GET / HTTP/1.0\r\nHost: example.com\r\n\r\n", "Connection: close\r\n"},
		{"GET / HTTP/1.0\r\nHost: example.com\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\nHost: example.com\r\n\r\n", "Connection: keep-alive\r\n"},
	} {
		conn := f.dial(false)
		io.WriteString(conn, c.send)
		b, err := io.ReadAll(conn)
		if got := string(b); err != nil || !strings.Contains(got, c.want) || !strings.HasSuffix(got, "\r\n\r\nhello") {
			t.Errorf("%q: %q %v", c.send, got, err)
		}
	}
	c := f.dial(false)
	io.WriteString(c, "GET /stream HTTP/1.0\r\nHost: example.com\r\nConnection: keep-alive\r\n\r\n")
	b, err := io.ReadAll(c)
	if got := string(b); err != nil || !strings.HasSuffix(got, "\r\n\r\npart part part ") || strings.Contains(got, "chunked") {
		t.Errorf("a stream: %q %v", got, err)
	}
}

// TestEarlyAnswer has the back end answer while the body is being sent, and
// go on reading, or not.
func TestEarlyAnswer(t *testing.T) {
	f := run(t, own, Config{})
	l := listenLocal(t)
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
					io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
					time.Sleep(50 * time.Millisecond)
				}
			}()
		}
	}()
	f.route(web.Options{}, l.Addr().String())
	for _, secure := range []bool{false, true} {
		c := f.dial(secure)
		io.WriteString(c, "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat("x", 1000))
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != 413 {
			t.Fatal(secure, resp, err)
		}
		if b, err := io.ReadAll(resp.Body); string(b) != "no" || err != nil {
			t.Error(secure, string(b), err)
		}
		// The rest of the body must not become a request.
		io.WriteString(c, "GET /smuggled HTTP/1.1\r\nHost: example.com\r\n\r\n")
		if rest, _ := io.ReadAll(c); len(rest) > 0 {
			t.Errorf("%v: %q", secure, rest)
		}
	}
	eventually(t, "nothing is under way", func() bool { return f.Active() == 0 })
}

// TestEcho is a conversation in one request: each piece of the answer comes
// before the next piece of the body is sent.
func TestEcho(t *testing.T) {
	f := run(t, own, Config{})
	f.route(web.Options{}, server(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		br := bufio.NewReader(r.Body)
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				return
			}
			io.WriteString(w, strings.ToUpper(line))
			w.(http.Flusher).Flush()
		}
	}))
	c := f.dial(false)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: example.com\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na1\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(resp.Body)
	for i := 1; i < 4; i++ {
		if line, err := br.ReadString('\n'); line != fmt.Sprintf("A%d\n", i) {
			t.Fatal(i, line, err)
		}
		fmt.Fprintf(c, "3\r\na%d\n\r\n", i+1)
	}
	io.WriteString(c, "0\r\n\r\n")
	if rest, err := io.ReadAll(br); string(rest) != "A4\n" || err != nil {
		t.Errorf("%q %v", rest, err)
	}
}

// TestSilenceWhileUploading has the back end begin its answer, and end it once
// it has a body that takes longer than an answer may be silent.
func TestSilenceWhileUploading(t *testing.T) { engines(t, testSilenceWhileUploading) }

func testSilenceWhileUploading(t *testing.T, e engineName) {
	t.Parallel()
	f := run(t, e, Config{ReadTime: 2 * time.Second})
	f.route(web.Options{}, server(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		if r.URL.Path == "/begun" {
			w.(http.Flusher).Flush()
		}
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, n, err)
	}))
	paths := map[engineName][]string{own: {"/begun", "/whole"}, netHTTP: {"/whole"}}[e]
	for _, path := range paths {
		c := f.dial(false)
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: example.com\r\nContent-Length: 10\r\n\r\n", path)
		for range 10 {
			time.Sleep(250 * time.Millisecond)
			io.WriteString(c, "x")
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(path, err)
		}
		if b, err := io.ReadAll(resp.Body); resp.StatusCode != 200 || string(b) != "10 <nil>" || err != nil {
			t.Errorf("%s: %d %q %v", path, resp.StatusCode, b, err)
		}
	}
}

// TestClientLeaves ends connections while an endpoint works on an answer, of
// which it must learn.
func TestClientLeaves(t *testing.T) { engines(t, testClientLeaves) }

func testClientLeaves(t *testing.T, e engineName) {
	t.Parallel()
	f := run(t, e, Config{})
	told := make(chan string, 10)
	started := make(chan bool, 10)
	f.route(web.Options{}, server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: 1\n\n")
			w.(http.Flusher).Flush()
		}
		started <- true
		<-r.Context().Done()
		told <- r.URL.Path
	}))
	for _, secure := range []bool{false, true} {
		for _, path := range []string{"/silent", "/stream"} {
			c := f.dial(secure)
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: example.com\r\n\r\n", path)
			<-started
			if path == "/stream" {
				if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
					t.Fatal(err)
				}
			}
			c.Close()
			select {
			case got := <-told:
				if got != path {
					t.Errorf("%s ended instead of %s", got, path)
				}
			case <-time.After(15 * time.Second):
				t.Fatalf("%v %s: the back end never learns", secure, path)
			}
		}
	}
	eventually(t, "nothing is under way", func() bool { return f.Active() == 0 })
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range f.records {
		if want := map[string]int{"/silent": 499, "/stream": 200}[r.URI]; r.Status != want {
			t.Errorf("%s: %d", r.URI, r.Status)
		}
	}
}

// TestHostileBackends has an endpoint answer what could be cut in two ways:
// the client gets no part of what is not an answer, and no later request gets
// a part of this one's.
func TestHostileBackends(t *testing.T) {
	t.Parallel()
	f := run(t, own, Config{ReadTime: 500 * time.Millisecond})
	const evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	for _, c := range []struct{ what, answer, want string }{
		{"nothing wrong", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 ok"},
		{"no reason", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", "200 ok"},
		{"until the end", "HTTP/1.1 200 OK\r\n\r\nok|", "200 ok"},
		{"HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 ok"},
		{"chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\no\r\n1\r\nk\r\n0\r\nX-T: y\r\n\r\n", "200 ok"},
		{"early hints", "HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200 ok"},
		{"more than the answer", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + evil, "200 ok"},
		{"a body where there is none", "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", "204 "},
		{"a length and a coding", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil, "502"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 4\r\n\r\nevil", "502"},
		{"a signed length", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", "502"},
		{"an unknown coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "502"},
		{"a coding of HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "502"},
		{"bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "502"},
		{"a folded header", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok", "502"},
		{"a space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", "502"},
		{"a null byte", "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\nok", "502"},
		{"another version", "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "502"},
		{"a status of words", "HTTP/1.1 abc OK\r\n\r\n", "502"},
		{"an upgrade nobody asked for", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "502"},
		{"early answers without end", strings.Repeat("HTTP/1.1 103 Early\r\n\r\n", 1000), "502"},
		{"a header without end", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 300<<10) + "\r\n\r\n", "502"},
		{"a malformed first chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "502"},
		{"half a header", "HTTP/1.1 200 OK\r\nContent-Le|", "502"},
		{"half a body", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok|", "cut"},
		{"half a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nok|", "cut"},
		{"silence", "", "504"},
	} {
		l := listenLocal(t)
		go func() {
			for {
				b, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer b.Close()
					for br := bufio.NewReader(b); ; {
						if _, err := http.ReadRequest(br); err != nil {
							return
						}
						text, over := strings.CutSuffix(c.answer, "|")
						if io.WriteString(b, text); over {
							return
						}
					}
				}()
			}
		}()
		f.route(web.Options{}, l.Addr().String())
		for range 3 {
			conn := f.dial(false)
			io.WriteString(conn, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
			br := bufio.NewReader(conn)
			resp, err := http.ReadResponse(br, nil)
			for err == nil && resp.StatusCode < 200 {
				resp, err = http.ReadResponse(br, nil)
			}
			if err != nil {
				t.Fatal(c.what, err)
			}
			body, err := io.ReadAll(resp.Body)
			got := fmt.Sprintf("%d %s", resp.StatusCode, body)
			if err != nil {
				got = "cut"
			}
			if !strings.HasPrefix(got, c.want) || strings.Contains(got, "evil") {
				t.Errorf("%s: %q, want %q", c.what, got, c.want)
			}
			conn.Close()
		}
		l.Close()
	}
}
