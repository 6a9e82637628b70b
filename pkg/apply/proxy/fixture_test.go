package proxy

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program/web"
)

// fixture is a running proxy on loopback.
type fixture struct {
	*Proxy
	t      *testing.T
	plain  string // host:port
	secure string
	cert   tls.Certificate
	stop   func() error

	mu      sync.Mutex
	records []Record
}

func (f *fixture) Done(r *Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.records = append(f.records, *r)
}

func (f *fixture) Connections(int) {}

// engineName is which engine serves HTTP/1.1.
type engineName string

const (
	own     engineName = "own"
	netHTTP engineName = "net-http"
)

// engines runs a test with each: a proxy is one program, whatever serves it.
func engines(t *testing.T, test func(t *testing.T, e engineName)) {
	for _, e := range []engineName{own, netHTTP} {
		t.Run(string(e), func(t *testing.T) { test(t, e) })
	}
}

// run starts a proxy and stops it with the test.
func run(t *testing.T, e engineName, cfg Config) *fixture {
	t.Helper()
	cfg.NetHTTP = e == netHTTP
	f := &fixture{t: t, cert: selfSigned(t, "example.com", "*.example.com")}
	cfg.Observer = f
	f.Proxy = New(cfg)
	// Authentication servers of tests are on loopback.
	f.auth.client.Transport = &http.Transport{}
	plain, secure := listenLocal(t), listenLocal(t)
	f.plain, f.secure = plain.Addr().String(), secure.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Serve(ctx, plain, secure) }()
	f.stop = sync.OnceValue(func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(30 * time.Second):
			t.Error("the proxy does not stop")
			return nil
		}
	})
	t.Cleanup(func() { f.stop() })
	return f
}

func listenLocal(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func selfSigned(t *testing.T, hosts ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: hosts, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// route sends example.com to endpoints under options.
func (f *fixture) route(o web.Options, endpoints ...string) *web.Route {
	return f.routeAs(o, web.HTTP, endpoints...)
}

func (f *fixture) routeAs(o web.Options, protocol web.Protocol, endpoints ...string) *web.Route {
	p, r := f.program(o, protocol, endpoints...)
	f.Set(p)
	return r
}

// program is one that was not set yet and may still be changed.
func (f *fixture) program(o web.Options, protocol web.Protocol, endpoints ...string) (*web.Program, *web.Route) {
	id := web.BackendID{Service: cluster.ObjectName{Namespace: "default", Name: "web"}, Port: "80"}
	b := &web.Backend{ID: id, Protocol: protocol}
	for _, e := range endpoints {
		b.Ready = append(b.Ready, netip.MustParseAddrPort(e))
	}
	r := &web.Route{Ingress: cluster.ObjectName{Namespace: "default", Name: "i"}, Host: "example.com", Path: "/", Backend: id, Options: &o}
	return &web.Program{
		Hosts:        map[string]*web.Host{"example.com": {Name: "example.com", Prefix: map[string]*web.Route{"": r}}},
		Backends:     map[web.BackendID]*web.Backend{id: b},
		Certificates: map[string]*web.Certificate{"example.com": {Certificate: f.cert}},
	}, r
}

// server is a back end.
func server(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	l := listenLocal(t)
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// echo answers with the request's line and headers, one a line.
func echo(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, r.Method+" "+r.RequestURI+"\nHost: "+r.Host+"\n")
	r.Header.Write(w)
	io.Copy(w, r.Body)
}

// client speaks one protocol with the proxy, whatever the URL's host.
func (f *fixture) client(protocol string) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: x509.NewCertPool()}}
	tr.TLSClientConfig.RootCAs.AddCert(f.cert.Leaf)
	address := f.plain
	switch protocol {
	case "http/1.1":
		tr.Protocols.SetHTTP1(true)
	case "h2c":
		tr.Protocols.SetUnencryptedHTTP2(true)
	case "h2":
		tr.Protocols.SetHTTP2(true)
		address = f.secure
	case "https":
		tr.Protocols.SetHTTP1(true)
		address = f.secure
	}
	tr.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	f.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func scheme(protocol string) string {
	if protocol == "h2" || protocol == "https" {
		return "https://"
	}
	return "http://"
}

// get sends one plain request with headers "Name: value", and returns status,
// headers and body.
func (f *fixture) get(target string, headers ...string) (int, http.Header, string) {
	f.t.Helper()
	method, path, _ := strings.Cut(target, " ")
	req, err := http.NewRequest(method, "http://example.com"+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header[name] = append(req.Header[name], value)
	}
	resp, err := f.client("http/1.1").Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(body)
}

// raw sends bytes and returns what comes back before the connection ends or
// has been quiet for a while.
func (f *fixture) raw(text string) string {
	f.t.Helper()
	c, err := net.Dial("tcp", f.plain)
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, text)
	c.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
	b, _ := io.ReadAll(c)
	return string(b)
}

// statuses are the status codes of the answers in a raw reply.
func statuses(raw string) string {
	var list []string
	br := bufio.NewReader(strings.NewReader(raw))
	for {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return strings.Join(list, " ")
		}
		list = append(list, resp.Status[:3])
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

// eventually polls until ok says so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func mustCompile(s string) *regexp.Regexp { return regexp.MustCompile(s) }

func mustAddrPort(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

func mustURL(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}
