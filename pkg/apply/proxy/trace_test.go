package proxy

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program/web"
	"poplin.dev/poplin/pkg/trace"
)

// TestTraceAgrees: what the trace says of a request is what the proxy does
// with it, and the steps name what decided.
func TestTraceAgrees(t *testing.T) { engines(t, testTraceAgrees) }

func testTraceAgrees(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	shop := server(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "shop "+r.RequestURI) })
	p, root := f.program(web.Options{}, web.HTTP, shop)
	host := p.Hosts["example.com"]
	add := func(path string, kind cluster.PathType, o web.Options) *web.Route {
		r := *root
		r.Path, r.Type, r.Options = path, kind, &o
		if kind == cluster.PathExact {
			host.Exact[path] = &r
		} else {
			host.Prefix[web.PrefixKey(path)] = &r
			host.Depth = max(host.Depth, web.Depth(web.PrefixKey(path)))
		}
		return &r
	}
	host.Exact = map[string]*web.Route{}
	add("/only", cluster.PathExact, web.Options{})
	add("/closed", cluster.PathPrefix, web.Options{Closed: "auth-tls-secret is not supported"})
	add("/secure", cluster.PathPrefix, web.Options{ToHTTPS: true})
	add("/far", cluster.PathPrefix, web.Options{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}})
	add("/denied", cluster.PathPrefix, web.Options{Deny: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	add("/away", cluster.PathPrefix, web.Options{Redirect: web.Redirect{To: "https://elsewhere.example/", Code: 302}})
	add("/app", cluster.PathPrefix, web.Options{}).Rewrite = "/inner"
	empty := web.BackendID{Service: cluster.ObjectName{Namespace: "default", Name: "empty"}, Port: "80"}
	add("/nobody", cluster.PathPrefix, web.Options{}).Backend = empty
	wild := *root
	p.Hosts["*.example.com"] = &web.Host{Name: "*.example.com", Prefix: map[string]*web.Route{"": &wild}}
	p.Certificates["*.example.com"] = p.Certificates["example.com"]
	f.Set(p)

	for _, c := range []struct {
		tls        bool
		host, path string
		step       string
	}{
		{false, "example.com", "/", "Ingress default/i: path /"},
		{false, "EXAMPLE.com.:80", "/a/../b", "the path is read as /b"},
		{false, "example.com", "/only", "path /only (Exact)"},
		{false, "example.com", "/only/more", "path / "},
		{false, "www.example.com", "/", "host www.example.com, by *.example.com"},
		{false, "a.b.example.com", "/", "no Ingress has the host a.b.example.com"},
		{false, "other.org", "/", "no Ingress has the host other.org"},
		{false, "example.com", "/%zz", "no valid URL path"},
		{false, "example.com", "/closed/x", "the route is closed: auth-tls-secret"},
		{false, "example.com", "/secure", "redirected to HTTPS"},
		{true, "example.com", "/secure", "certificate of Secret"},
		{false, "example.com", "/far", "is not admitted"},
		{false, "example.com", "/denied", "is not admitted"},
		{false, "example.com", "/away", "redirected to https://elsewhere.example/"},
		{false, "example.com", "/app/x", "the path becomes /inner"},
		{false, "example.com", "/nobody", "Service default/empty:80 has no ready endpoint"},
		{true, "other.org", "/", "no certificate covers"},
	} {
		said := trace.HTTP(p, trace.Request{TLS: c.tls, Host: c.host, Path: c.path, Client: netip.MustParseAddr("127.0.0.1")})
		steps := strings.Join(said.Steps, "\n")
		if !strings.Contains(steps, c.step) {
			t.Errorf("%s%s: no step says %q:\n%s", c.host, c.path, c.step, steps)
		}
		status, body, refused := f.asked(c.tls, c.host, c.path)
		switch {
		case refused != said.Refused:
			t.Errorf("%s%s: connection refused: %v; the trace says %v\n%s", c.host, c.path, refused, said.Refused, steps)
		case refused:
		case said.Status != 0 && said.Status != status:
			t.Errorf("%s%s: the proxy answers %d, the trace says %d\n%s", c.host, c.path, status, said.Status, steps)
		case said.Status == 0 && (status != 200 || body != "shop "+said.Path || said.Endpoints[0].String() != shop):
			t.Errorf("%s%s: the proxy answers %d %q, the trace says %s by %v\n%s", c.host, c.path, status, body, said.Path, said.Endpoints, steps)
		}
	}
}

// asked sends a request as it is written, over TLS by name if so.
func (f *fixture) asked(secure bool, host, path string) (status int, body string, refused bool) {
	conn, err := net.Dial("tcp", f.plain)
	if secure {
		conn, err = tls.Dial("tcp", f.secure, &tls.Config{ServerName: host, InsecureSkipVerify: true})
	}
	if err != nil {
		return 0, "", true
	}
	defer conn.Close()
	io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		f.t.Fatalf("%s%s: %v", host, path, err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), false
}
