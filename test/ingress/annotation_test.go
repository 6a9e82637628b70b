package ingress

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	daemon "poplin.dev/poplin/daemon/ingress"
	"poplin.dev/poplin/test/certificate"
	"poplin.dev/poplin/test/ingress/api"
	"poplin.dev/poplin/test/ingress/traffic"
	"poplin.dev/poplin/test/need"
)

// tierOne are the annotations of ingress-nginx that nearly everybody uses,
// each set alone or with those it needs, and what a client and the back end
// see of it. Want are texts of the answer, whose body is the request as the
// back end got it; one that begins with "!" must not be there.
var tierOne = []struct {
	annotations []string
	secure      bool     // the host has TLS, and the request comes by it if it begins with "https"
	path        string   // of the rule; "/" where it is empty
	to          string   // the Service; "echo" where it is empty
	request     string   // "METHOD path", or "https METHOD path"
	headers     []string // of the request
	body        int      // bytes of it
	want        []string
}{
	{annotations: []string{"ssl-redirect: true"}, secure: true, request: "GET /x?y=z", want: []string{"308 ", "Location: https://HOST/x?y=z\r\n"}},
	{annotations: []string{"ssl-redirect: false"}, secure: true, request: "GET /x", want: []string{"200 ", "GET /x HTTP/1.1", "X-Forwarded-Proto: http\r\n"}},
	{annotations: []string{"ssl-redirect: false"}, secure: true, request: "https GET /x", want: []string{"200 ", "X-Forwarded-Proto: https\r\n"}},
	{annotations: []string{"force-ssl-redirect: true"}, request: "GET /x", want: []string{"308 ", "Location: https://HOST/x\r\n"}},

	{annotations: []string{"proxy-body-size: 1k"}, request: "POST /", body: 1024, want: []string{"200 ", "Content-Length: 1024\r\n"}},
	{annotations: []string{"proxy-body-size: 1k"}, request: "POST /", body: 1025, want: []string{"413 "}},
	{annotations: []string{"proxy-body-size: 0"}, request: "POST /", body: 2 << 20, want: []string{"200 "}},
	{annotations: []string{"proxy-connect-timeout: 1"}, to: "deaf", request: "GET /", want: []string{"504 "}},
	{annotations: []string{"proxy-read-timeout: 1"}, request: "GET /silent", want: []string{"504 "}},
	{annotations: []string{"proxy-send-timeout: 1"}, request: "POST /unread", body: 64 << 20, want: []string{"504 "}},
	// What these tune does not exist here: large headers pass, bodies stream.
	{annotations: []string{"proxy-buffer-size: 4k"}, request: "GET /large-header", want: []string{"200 ", "X-Large: " + strings.Repeat("x", 16000)}},
	{annotations: []string{"proxy-buffering: on"}, request: "GET /", want: []string{"200 "}},
	{annotations: []string{"proxy-request-buffering: off"}, request: "POST /", body: 10, want: []string{"200 "}},

	{annotations: []string{"rewrite-target: /$2"}, path: "/app(/|$)(.*)", request: "GET /app/a/b?c=d", want: []string{"200 ", "GET /a/b?c=d HTTP/1.1"}},
	{annotations: []string{"rewrite-target: /"}, path: "/app", request: "GET /APPLE", want: []string{"200 ", "GET / HTTP/1.1"}},
	{annotations: []string{"use-regex: true"}, path: "/v[0-9]+/.*", request: "GET /V12/x", want: []string{"200 ", "GET /V12/x HTTP/1.1"}},
	{annotations: []string{"use-regex: true"}, path: "/v[0-9]+/.*", request: "GET /vx/x", want: []string{"404 "}},

	{annotations: []string{"backend-protocol: HTTPS"}, to: "secure", request: "GET /", want: []string{"200 ", "by TLS"}},
	{annotations: []string{"backend-protocol: HTTPS", "proxy-ssl-verify: on", "proxy-ssl-secret: default/ca", "proxy-ssl-name: secure.internal"}, to: "secure", request: "GET /", want: []string{"200 ", "by TLS"}},
	{annotations: []string{"backend-protocol: HTTPS", "proxy-ssl-verify: on", "proxy-ssl-secret: default/ca", "proxy-ssl-name: other.internal"}, to: "secure", request: "GET /", want: []string{"502 "}},
	{annotations: []string{"backend-protocol: GRPC"}, request: "POST /", want: []string{"200 ", "POST / HTTP/2.0"}},
	{annotations: []string{"backend-protocol: GRPCS"}, to: "secure", request: "POST /", want: []string{"200 ", "POST / HTTP/2.0", "by TLS"}},

	{annotations: []string{"whitelist-source-range: 10.244.0.0/24"}, request: "GET /", want: []string{"200 "}},
	{annotations: []string{"whitelist-source-range: 192.0.2.0/24,fd00::/8"}, request: "GET /", want: []string{"403 "}},
	{annotations: []string{"whitelist-source-range: 192.0.2.0/24"}, request: "GET /", headers: []string{"X-Forwarded-For: 192.0.2.1"}, want: []string{"403 "}},
	{annotations: []string{"whitelist-source-range: nonsense"}, request: "GET /", want: []string{"503 "}},

	{annotations: []string{"enable-cors: true"}, request: "GET /", headers: []string{"Origin: https://a.com"}, want: []string{"200 ", "Access-Control-Allow-Origin: *\r\n", "Access-Control-Allow-Credentials: true\r\n"}},
	{annotations: []string{"enable-cors: true", "cors-allow-origin: https://a.com"}, request: "GET /", headers: []string{"Origin: https://a.com"}, want: []string{"200 ", "Access-Control-Allow-Origin: https://a.com\r\n"}},
	{annotations: []string{"enable-cors: true", "cors-allow-origin: https://a.com"}, request: "GET /", headers: []string{"Origin: https://b.com"}, want: []string{"200 ", "!Access-Control-Allow-Origin"}},
	{annotations: []string{"enable-cors: true", "cors-allow-methods: GET, PUT", "cors-allow-headers: X-A,X-B", "cors-max-age: 60"}, request: "OPTIONS /",
		headers: []string{"Origin: https://a.com", "Access-Control-Request-Method: PUT"},
		want:    []string{"204 ", "Access-Control-Allow-Methods: GET, PUT\r\n", "Access-Control-Allow-Headers: X-A, X-B\r\n", "Access-Control-Max-Age: 60\r\n"}},
	{annotations: []string{"enable-cors: true", "cors-expose-headers: X-C", "cors-allow-credentials: false"}, request: "GET /", headers: []string{"Origin: https://a.com"},
		want: []string{"200 ", "Access-Control-Expose-Headers: X-C\r\n", "!Access-Control-Allow-Credentials"}},

	{annotations: []string{"affinity: cookie"}, request: "GET /", want: []string{"200 ", "Set-Cookie: INGRESSCOOKIE=", "; Path=/", "HttpOnly"}},
	{annotations: []string{"affinity: cookie", "session-cookie-name: s", "session-cookie-path: /app", "session-cookie-domain: example.com", "session-cookie-max-age: 60", "session-cookie-samesite: Lax", "session-cookie-secure: true"},
		request: "GET /app", want: []string{"Set-Cookie: s=", "; Path=/app", "; Domain=example.com", "; Max-Age=60", "; SameSite=Lax", "; Secure"}},
	{annotations: []string{"affinity: cookie", "session-cookie-expires: 30"}, request: "GET /", want: []string{"; Max-Age=30"}},

	{annotations: []string{"auth-type: basic", "auth-secret: users", "auth-realm: Staff"}, request: "GET /", want: []string{"401 ", `Www-Authenticate: Basic realm="Staff"`}},
	{annotations: []string{"auth-type: basic", "auth-secret: users"}, request: "GET /", headers: []string{"Authorization: " + login("jane", "secret")}, want: []string{"200 "}},
	{annotations: []string{"auth-type: basic", "auth-secret: users"}, request: "GET /", headers: []string{"Authorization: " + login("jane", "wrong")}, want: []string{"401 "}},
	{annotations: []string{"auth-type: basic", "auth-secret: none"}, request: "GET /", headers: []string{"Authorization: " + login("jane", "secret")}, want: []string{"503 "}},

	{annotations: []string{"auth-url: http://10.244.0.33:8080/verify", "auth-response-headers: X-User"}, request: "GET /", headers: []string{"Cookie: who=jane", "X-User: forged"},
		want: []string{"200 ", "X-User: jane\r\n", "!forged"}},
	{annotations: []string{"auth-url: http://10.244.0.33:8080/verify"}, request: "GET /", want: []string{"401 "}},
	{annotations: []string{"auth-url: http://10.244.0.33:8080/verify", "auth-signin: https://login.example.com/start?rd=$escaped_request_uri"}, request: "GET /x?y=z",
		want: []string{"302 ", "Location: https://login.example.com/start?rd=%2Fx%3Fy%3Dz\r\n"}},
}

func login(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func TestTierOneAnnotations(t *testing.T) {
	s := api.New(t)
	cert := certificateFor(t, "*.example.com", "secure.internal")
	annotated(t, s, cert)
	r := run(t, s, 101, func(c *daemon.Config) { c.Front.Name = ""; c.Front.Namespace = "" })
	s.Until("it is ready", r.ready)
	for i, c := range tierOne {
		t.Run(strings.Join(c.annotations, "; ")+" | "+c.request, func(t *testing.T) {
			t.Parallel()
			scheme, request := "http", c.request
			if rest, secure := strings.CutPrefix(request, "https "); secure {
				scheme, request = "https", rest
			}
			method, path, _ := strings.Cut(request, " ")
			req, err := http.NewRequest(method, scheme+"://"+annotatedHost(i)+path, bytes.NewReader(make([]byte, c.body)))
			if err != nil {
				t.Fatal(err)
			}
			for _, h := range c.headers {
				name, value, _ := strings.Cut(h, ": ")
				req.Header.Set(name, value)
			}
			do := traffic.Client(to(func() []string { return []string{r.address} }), certificate.Roots(cert), false).Do
			if c.body > 1<<20 {
				do = func(req *http.Request) (*http.Response, error) { return listening(t, r.address, req) }
			}
			resp, err := do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			dump, err := httputil.DumpResponse(resp, true)
			if err != nil {
				t.Fatal(err)
			}
			got := strings.TrimPrefix(string(dump), "HTTP/1.1 ")
			for _, want := range c.want {
				unwanted, not := strings.CutPrefix(strings.ReplaceAll(want, "HOST", annotatedHost(i)), "!")
				if strings.Contains(got, unwanted) == not {
					t.Errorf("want %q in the answer:\n%.1000s", want, got)
				}
			}
		})
	}
}

// listening reads the answer while it still sends: net/http's client gives up
// on an early answer where its own writing fails first.
func listening(t *testing.T, address string, req *http.Request) (*http.Response, error) {
	c, err := net.Dial("tcp", address+":80")
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	go func() { _ = req.Write(c) }() // what is wrong with it, the answer says
	return http.ReadResponse(bufio.NewReader(c), req)
}

func annotatedHost(i int) string { return fmt.Sprintf("t%d.example.com", i) }

// annotated makes the pods and the objects of tierOne.
func annotated(t *testing.T, s *api.Server, cert *certificate.Certificate) {
	t.Helper()
	pod(t, 31, echo)
	pod(t, 32, echo)
	pod(t, 33, verify)
	secure(t, 34, cert)
	deaf(t, 35)
	for _, o := range []string{
		class, cert.Secret("default", "crt"), service("default", "echo", "}}"), slice("default", "echo", 31, 32),
		service("default", "secure", "}}"), slice("default", "secure", 34), service("default", "deaf", "}}"), slice("default", "deaf", 35),
		fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"default","name":"ca"},"data":{"ca.crt":%q}}`, base64.StdEncoding.EncodeToString(cert.PEM)),
		fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"default","name":"users"},"data":{"auth":%q}}`,
			base64.StdEncoding.EncodeToString([]byte("jane:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n"))),
	} {
		s.Put(o)
	}
	for i, c := range tierOne {
		var keys []string
		for _, a := range c.annotations {
			name, value, _ := strings.Cut(a, ": ")
			keys = append(keys, fmt.Sprintf("%q:%q", "nginx.ingress.kubernetes.io/"+name, value))
		}
		tls, path, to := "", c.path, c.to
		if c.secure {
			tls = fmt.Sprintf(`,"tls":[{"hosts":[%q],"secretName":"crt"}]`, annotatedHost(i))
		}
		if path == "" {
			path = "/"
		}
		if to == "" {
			to = "echo"
		}
		s.Put(fmt.Sprintf(`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"namespace":"default","name":%q,"annotations":{%s}},"spec":{"ingressClassName":"poplin"%s,
"rules":[{"host":%q,"http":{"paths":[{"path":%q,"pathType":"ImplementationSpecific","backend":{"service":{"name":%q,"port":{"number":80}}}}]}}]}}`,
			annotatedHost(i), strings.Join(keys, ","), tls, annotatedHost(i), path, to))
	}
}

// echo answers with the request.
func echo(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/silent", "/unread":
		select {
		case <-r.Context().Done():
		case <-time.After(5 * time.Second):
		}
		return
	case "/large-header":
		w.Header().Set("X-Large", strings.Repeat("x", 16000))
	}
	fmt.Fprintf(w, "%s %s %s\r\n", r.Method, r.RequestURI, r.Proto)
	_ = r.Header.Write(w) // the client misses what is lost
	if r.ContentLength > 0 {
		fmt.Fprintf(w, "Content-Length: %d\r\n", r.ContentLength)
	}
	if r.TLS != nil {
		io.WriteString(w, "by TLS\r\n")
	}
	_, _ = io.Copy(io.Discard, r.Body)
}

// verify lets in who has a cookie, and says who that is.
func verify(w http.ResponseWriter, r *http.Request) {
	c, err := r.Cookie("who")
	if err != nil {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	w.Header().Set("X-User", c.Value)
}

// secure is a pod that speaks TLS.
func secure(t *testing.T, last int, cert *certificate.Certificate) {
	t.Helper()
	pair, err := tls.X509KeyPair(cert.PEM, cert.Key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("10.244.0.%d:8080", last))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(echo), TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}}}
	go s.ServeTLS(l, "", "")
	t.Cleanup(func() { s.Close() })
}

// deaf is a pod whose kernel has no room for another connection, so that it
// answers none.
func deaf(t *testing.T, last int) {
	t.Helper()
	need.Root(t)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	at := &unix.SockaddrInet4{Port: 8080, Addr: [4]byte{10, 244, 0, byte(last)}}
	if err := unix.Bind(fd, at); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("10.244.0.%d:8080", last), 200*time.Millisecond)
		if err != nil {
			return // full
		}
		t.Cleanup(func() { c.Close() })
	}
	t.Fatal("it takes every connection")
}
