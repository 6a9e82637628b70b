package proxy

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/program/web"
)

func TestProtocols(t *testing.T) { engines(t, testProtocols) }

func testProtocols(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	back := server(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintf(w, "%s %s %s %d", r.Proto, r.Method, r.RequestURI, len(body))
		w.Header().Set("X-Sum", "42")
	})
	for _, behind := range []web.Protocol{web.HTTP, web.H2C} {
		f.routeAs(web.Options{}, behind, back)
		for _, front := range []string{"http/1.1", "https", "h2", "h2c"} {
			body := bytes.Repeat([]byte("x"), 1<<20)
			for name, reader := range map[string]io.Reader{"length": bytes.NewReader(body), "chunked": io.MultiReader(bytes.NewReader(body))} {
				resp, err := f.client(front).Post(scheme(front)+"example.com/a%2Fb?q=1;2", "text/plain", reader)
				if err != nil {
					t.Fatalf("%s %s to %s: %v", front, name, behind, err)
				}
				got, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				proto := "HTTP/1.1"
				if behind == web.H2C {
					proto = "HTTP/2.0"
				}
				if want := proto + " POST /a%2Fb?q=1;2 1048576"; string(got) != want || resp.Trailer.Get("X-Sum") != "42" {
					t.Errorf("%s %s to %s: %q, trailer %v; want %q", front, name, behind, got, resp.Trailer, want)
				}
			}
		}
	}
}

func TestBackendsOverTLS(t *testing.T) { engines(t, testBackendsOverTLS) }

func testBackendsOverTLS(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	cert := selfSigned(t, "web.default.svc", "inner.example.com")
	l := listenLocal(t)
	s := &http.Server{Handler: http.HandlerFunc(echo)}
	s.ErrorLog = f.server(t.Context(), false).ErrorLog
	go s.Serve(tls.NewListener(l, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}))
	t.Cleanup(func() { s.Close() })
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf)
	for _, c := range []struct {
		name string
		up   web.Upstream
		want int
	}{
		{"unknown authority", web.Upstream{}, 502},
		{"own authority, by the Service's name", web.Upstream{Roots: roots, RootsID: "1"}, 200},
		{"own authority, by another name", web.Upstream{Roots: roots, RootsID: "1", ServerName: "inner.example.com"}, 200},
		{"another server's certificate", web.Upstream{Roots: roots, RootsID: "1", ServerName: "other.example.com"}, 502},
		{"not verified", web.Upstream{Insecure: true}, 200},
	} {
		for _, c.up.Protocol = range []web.Protocol{web.HTTPS, web.H2} {
			f.route(web.Options{Upstream: c.up}, l.Addr().String())
			if status, _, body := f.get("GET /"); status != c.want {
				t.Errorf("%s, %s: %d %s", c.name, c.up.Protocol, status, body)
			}
		}
	}
}

// TestHandshakes has clients of each version of TLS that offer what they speak.
func TestHandshakes(t *testing.T) { engines(t, testHandshakes) }

func testHandshakes(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	f.route(web.Options{}, server(t, echo))
	for version, name := range map[uint16]string{tls.VersionTLS12: "1.2", tls.VersionTLS13: "1.3"} {
		for _, offer := range []struct {
			protocols []string
			want      string
		}{
			{nil, ""},
			{[]string{"http/1.1"}, "http/1.1"},
			{[]string{"h2"}, "h2"},
			{[]string{"http/1.1", "h2"}, "h2"}, // the server's preference
		} {
			c, err := tls.Dial("tcp", f.secure, &tls.Config{ServerName: "example.com", InsecureSkipVerify: true, MinVersion: version, MaxVersion: version, NextProtos: offer.protocols})
			if err != nil {
				t.Errorf("TLS %s, %v: %v", name, offer.protocols, err)
				continue
			}
			if got := c.ConnectionState().NegotiatedProtocol; got != offer.want {
				t.Errorf("TLS %s, %v: %q is spoken", name, offer.protocols, got)
			}
			c.Close()
		}
	}
	for what, config := range map[string]*tls.Config{
		"TLS 1.1":                           {MaxVersion: tls.VersionTLS11},
		"a protocol that nobody here knows": {NextProtos: []string{"spdy/3"}},
	} {
		config.ServerName, config.InsecureSkipVerify = "example.com", true
		if c, err := tls.Dial("tcp", f.secure, config); err == nil {
			c.Close()
			t.Errorf("%s is spoken", what)
		}
	}
}

func TestCertificatesByServerName(t *testing.T) { engines(t, testCertificatesByServerName) }

func testCertificatesByServerName(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	exact, wild := selfSigned(t, "www.example.com"), selfSigned(t, "*.example.com")
	f.Set(&web.Program{Certificates: map[string]*web.Certificate{"www.example.com": {Certificate: exact}, "*.example.com": {Certificate: wild}}})
	for name, want := range map[string]*x509.Certificate{
		"www.example.com": exact.Leaf, "WWW.Example.com": exact.Leaf, "x.example.com": wild.Leaf,
		"a.b.example.com": nil, "other.org": nil, "": nil,
	} {
		c, err := tls.Dial("tcp", f.secure, &tls.Config{ServerName: name, InsecureSkipVerify: true})
		switch {
		case want == nil && (err == nil || !strings.Contains(err.Error(), "unrecognized name")):
			t.Errorf("%s: %v", name, err)
		case want != nil && (err != nil || !c.ConnectionState().PeerCertificates[0].Equal(want)):
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			c.Close()
		}
	}
	// Another certificate, and the open connection goes on.
	f.cert = exact
	f.route(web.Options{}, server(t, echo))
	p := *f.Program()
	p.Certificates = map[string]*web.Certificate{"example.com": {Certificate: selfSigned(t, "example.com")}}
	f.Set(&p)
	c, err := tls.Dial("tcp", f.secure, &tls.Config{ServerName: "example.com", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	renewed := selfSigned(t, "example.com")
	next := p
	next.Certificates = map[string]*web.Certificate{"example.com": {Certificate: renewed}}
	f.Set(&next)
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
	if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 200 {
		t.Errorf("after rotation: %v %v", resp, err)
	}
	fresh, err := tls.Dial("tcp", f.secure, &tls.Config{ServerName: "example.com", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if !fresh.ConnectionState().PeerCertificates[0].Equal(renewed.Leaf) {
		t.Error("a new connection got the old certificate")
	}
}

func TestHeaders(t *testing.T) { engines(t, testHeaders) }

func testHeaders(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	f.route(web.Options{}, server(t, echo))
	forged := []string{
		"X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: evil.com", "X-Forwarded-Proto: https", "X-Forwarded-Port: 1", "X-Real-Ip: 1.2.3.4",
		"Forwarded: for=1.2.3.4", "X_Real_IP: 1.2.3.4", "X_forwarded_for: 1.2.3.4", "Proxy: evil", "X-Original-Url: /admin", "X-Rewrite-Url: /admin",
		"Connection: X-Forwarded-For, X-Real-Ip, X-Hop", "X-Hop: 1", "Keep-Alive: 5", "X-Kept: yes", "X-Request-Id: abc-1", "Traceparent: 00-1-2-01",
	}
	_, _, got := f.get("GET /p", forged...)
	for _, want := range []string{
		"GET /p\n", "Host: example.com\n", "X-Forwarded-For: 127.0.0.1\r\n", "X-Forwarded-Host: example.com\r\n", "X-Forwarded-Proto: http\r\n",
		"X-Forwarded-Port: 80\r\n", "X-Real-Ip: 127.0.0.1\r\n", "X-Kept: yes\r\n", "X-Request-Id: abc-1\r\n", "Traceparent: 00-1-2-01\r\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, bad := range []string{"1.2.3.4", "evil", "X-Hop", "Keep-Alive", "X_", "/admin"} {
		if strings.Contains(got, bad) {
			t.Errorf("%q came through", bad)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
	if _, _, got := f.get("GET /", "X-Request-Id: a b\"c"); strings.Contains(got, `a b"c`) {
		t.Errorf("a request id that is not fit for logs:\n%s", got)
	}
}

func TestTrustedProxies(t *testing.T) { engines(t, testTrustedProxies) }

func testTrustedProxies(t *testing.T, e engineName) {
	f := run(t, e, Config{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")}})
	allow := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	f.route(web.Options{Allow: allow}, server(t, echo))
	for _, c := range []struct {
		xff    string
		status int
		client string
	}{
		{"192.0.2.7", 200, "192.0.2.7"},
		{"8.8.8.8, 192.0.2.7", 200, "192.0.2.7"},
		{"192.0.2.7, 10.1.1.1", 200, "192.0.2.7"},
		{"192.0.2.7, 8.8.8.8", 403, ""},
		{"192.0.2.7, junk, 10.1.1.1", 403, ""},
		{"10.1.1.1", 403, ""},
		{"", 403, ""},
	} {
		status, _, got := f.get("GET /", "X-Forwarded-For: "+c.xff, "X-Forwarded-Proto: https")
		if status != c.status || c.client != "" && (!strings.Contains(got, "X-Real-Ip: "+c.client+"\r\n") ||
			!strings.Contains(got, "X-Forwarded-For: "+c.xff+", 127.0.0.1\r\n") || !strings.Contains(got, "X-Forwarded-Proto: https\r\n")) {
			t.Errorf("%q: %d\n%s", c.xff, status, got)
		}
	}
}

func TestAnswersOfItsOwn(t *testing.T) { engines(t, testAnswersOfItsOwn) }

func testAnswersOfItsOwn(t *testing.T, e engineName) {
	t.Parallel()
	f := run(t, e, Config{NoEncodedSlash: true})
	back := server(t, echo)
	route := f.route(web.Options{}, back)
	for _, c := range []struct{ request, want string }{
		{"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n", "200"},
		{"GET / HTTP/1.1\r\nHost: EXAMPLE.com:8080\r\n\r\n", "200"},
		{"GET http://example.com/x HTTP/1.1\r\nHost: other.com\r\n\r\n", "200"},
		{"GET / HTTP/1.1\r\nHost: other.com\r\n\r\n", "404"},
		{"GET / HTTP/1.1\r\n\r\n", "400"},
		{"GET / HTTP/1.0\r\n\r\n", "404"},
		{"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", "400"},
		{"GET / HTTP/1.1\r\nHost: example.com\r\nHost: other.com\r\n\r\n", "400"},
		{"GET /%zz HTTP/1.1\r\nHost: example.com\r\n\r\n", "400"},
		{"GET /a%00b HTTP/1.1\r\nHost: example.com\r\n\r\n", "400"},
		{"GET /..%2f HTTP/1.1\r\nHost: example.com\r\n\r\n", "400"},
		{"GET /a%2fb HTTP/1.1\r\nHost: example.com\r\n\r\n", "400"},
		{"OPTIONS * HTTP/1.1\r\nHost: example.com\r\n\r\n", "400"},
		{"TRACE / HTTP/1.1\r\nHost: example.com\r\n\r\n", "405"},
		{"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n", "405"},
	} {
		if got := statuses(f.raw(c.request)); got != c.want {
			t.Errorf("%q: %s, want %s", c.request, got, c.want)
		}
	}
	dead := listenLocal(t)
	dead.Close()
	for _, c := range []struct {
		what      string
		endpoints []string
		options   web.Options
		want      int
	}{
		{"no endpoint", nil, web.Options{}, 503},
		{"nobody listens", []string{dead.Addr().String()}, web.Options{}, 502},
		{"closed", []string{back}, web.Options{Closed: "why"}, 503},
		{"denied", []string{back}, web.Options{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}}, 403},
		{"to HTTPS", []string{back}, web.Options{ToHTTPS: true}, 308},
		{"redirect", []string{back}, web.Options{Redirect: web.Redirect{To: "https://new.example.com/", Code: 301}}, 301},
	} {
		route = f.route(c.options, c.endpoints...)
		status, h, _ := f.get("GET /x?y=z")
		if status != c.want {
			t.Errorf("%s: %d, want %d", c.what, status, c.want)
		}
		if c.what == "to HTTPS" && h.Get("Location") != "https://example.com/x?y=z" {
			t.Errorf("redirected to %s", h.Get("Location"))
		}
	}
	_ = route
}

func TestRewritesAndUpstreamHost(t *testing.T) { engines(t, testRewritesAndUpstreamHost) }

func testRewritesAndUpstreamHost(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	r := f.route(web.Options{Upstream: web.Upstream{Host: "inner.example.com"}}, server(t, echo))
	for _, c := range []struct{ match, rewrite, path, want string }{
		{"(?i)^(?:/app(/|$)(.*))", "/$2", "/app/x/y?q=1", "/x/y?q=1"},
		{"(?i)^(?:/app(/|$)(.*))", "/$2", "/app", "/"},
		{"^(?:/app/(.*))", "/$1", "/app/a%2Fb%20c", "/a%2Fb%20c"},
		{"^(?:/app/(.*))", "$1", "/app/x", "/x"},
		{"^(?:/(a)(.*))", "/x.$1.$2", "/a./y", "/x.a../y"},
		// A group cannot be made to climb.
		{"^(?:/app(.*))", "/safe/.$1", "/app./admin", "refused"},
		{"", "/fixed", "/anything", "/fixed"},
	} {
		r.Match, r.Rewrite = nil, c.rewrite
		if c.match != "" {
			r.Match = mustCompile(c.match)
		}
		status, _, got := f.get("GET " + c.path)
		if c.want == "refused" {
			if status != 400 {
				t.Errorf("%s: %d", c.path, status)
			}
			continue
		}
		line, rest, _ := strings.Cut(got, "\n")
		if line != "GET "+c.want || !strings.HasPrefix(rest, "Host: inner.example.com\n") {
			t.Errorf("%s %s %s: %q", c.match, c.rewrite, c.path, line)
		}
	}
}

func TestTimeouts(t *testing.T) { engines(t, testTimeouts) }

func testTimeouts(t *testing.T, e engineName) {
	t.Parallel()
	f := run(t, e, Config{ReadTime: 150 * time.Millisecond, BodyTime: 150 * time.Millisecond})
	release := make(chan bool)
	t.Cleanup(func() { close(release) })
	back := server(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/drip":
			for range 6 {
				io.WriteString(w, "x")
				w.(http.Flusher).Flush()
				time.Sleep(60 * time.Millisecond)
			}
			return
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: 1\n\n")
			w.(http.Flusher).Flush()
			time.Sleep(400 * time.Millisecond)
			io.WriteString(w, "data: 2\n\n")
			return
		case "/half":
			io.WriteString(w, "half")
			w.(http.Flusher).Flush()
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	f.route(web.Options{}, back)
	if status, _, _ := f.get("GET /silent"); status != 504 {
		t.Errorf("silent: %d", status)
	}
	if _, _, body := f.get("GET /drip"); body != "xxxxxx" {
		t.Errorf("drip: %q", body)
	}
	if _, _, body := f.get("GET /events"); body != "data: 1\n\ndata: 2\n\n" {
		t.Errorf("events: %q", body)
	}
	resp, err := f.client("http/1.1").Get("http://example.com/half")
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(resp.Body); err == nil {
		t.Errorf("half an answer looks whole: %q", body)
	}
	resp.Body.Close()
	f.route(web.Options{Read: time.Minute}, back)
	start := time.Now()
	slow := f.raw("POST /x HTTP/1.1\r\nHost: example.com\r\nContent-Length: 10\r\n\r\nabc")
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("a body that does not come held a connection for %v: %q", took, slow)
	}
}

func TestBodyLimit(t *testing.T) { engines(t, testBodyLimit) }

func testBodyLimit(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	f.route(web.Options{BodyLimit: 1000}, server(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		fmt.Fprint(w, n)
	}))
	for _, protocol := range []string{"http/1.1", "h2c"} {
		for size, want := range map[int]int{1000: 200, 1001: 413, 5 << 20: 413} {
			for name, body := range map[string]io.Reader{"length": bytes.NewReader(make([]byte, size)), "chunked": io.MultiReader(bytes.NewReader(make([]byte, size)))} {
				resp, err := f.client(protocol).Post("http://example.com/", "x/y", body)
				if err != nil {
					// A large body whose connection is closed under it.
					if size < 1<<20 {
						t.Errorf("%s %s %d: %v", protocol, name, size, err)
					}
					continue
				}
				if resp.StatusCode != want {
					t.Errorf("%s %s %d: %d, want %d", protocol, name, size, resp.StatusCode, want)
				}
				resp.Body.Close()
			}
		}
	}
}

func TestContinue(t *testing.T) { engines(t, testContinue) }

func testContinue(t *testing.T, e engineName) {
	t.Parallel()
	f := run(t, e, Config{})
	f.route(web.Options{}, server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(403)
			return
		}
		echo(w, r)
	}))
	c, err := net.Dial("tcp", f.plain)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	br := bufio.NewReader(c)
	fmt.Fprint(c, "POST /yes HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
	if line, err := br.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 100") {
		t.Fatalf("%q %v", line, err)
	}
	br.ReadString('\n')
	fmt.Fprint(c, "body")
	resp, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 200 || !strings.HasSuffix(string(b), "body") {
		t.Errorf("%d %q", resp.StatusCode, b)
	}
	// The back end says no before the body is sent.
	if got := statuses(f.raw("POST /no HTTP/1.1\r\nHost: example.com\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")); got != "403" {
		t.Errorf("refused: %s", got)
	}
}
