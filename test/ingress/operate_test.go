package ingress

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	daemon "poplin.dev/poplin/daemon/ingress"
	"poplin.dev/poplin/test/certificate"
	"poplin.dev/poplin/test/ingress/api"
)

// cert-manager proves that it owns a host by a Service and an Ingress of its
// own beside the user's (its solver for HTTP-01), while the user's has neither
// a certificate nor plain HTTP yet.
func TestCertManagerFindsTheWay(t *testing.T) {
	s := api.New(t)
	cert := certificateFor(t, "shop.com")
	for _, o := range []string{
		class, service("default", "web", "}}"), slice("default", "web", 11),
		strings.Replace(ingressOf("shop", "shop.com", "web", `,"tls":[{"hosts":["shop.com"],"secretName":"shop-tls"}]`), `"ingress.poplin.dev/ssl-redirect":"false"`, `"cert-manager.io/cluster-issuer":"acme"`, 1),
	} {
		s.Put(o)
	}
	pod(t, 11, name("web"))
	pod(t, 12, name("token.thumbprint"))
	r := run(t, s, 101, nil)
	s.Until("it is ready", r.ready)
	plain, tls := client(nil, false, r.address), client(certificate.Roots(cert), false, r.address)
	const challenge = "http://shop.com/.well-known/acme-challenge/token"
	redirected := func(url string) func() bool {
		return func() bool { return strings.HasPrefix(get(plain, url), "308 ") }
	}
	s.Until("plain HTTP is redirected", redirected(challenge))
	s.Put(strings.Replace(service("default", "cm-acme-http-solver-x", `,"type":"NodePort"}}`), `"port":80`, `"port":8089`, 1))
	s.Put(slice("default", "cm-acme-http-solver-x", 12))
	s.Put(`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"namespace":"default","name":"cm-acme-http-solver-y","annotations":{"nginx.ingress.kubernetes.io/whitelist-source-range":"0.0.0.0/0,::/0"},
"labels":{"acme.cert-manager.io/http01-solver":"true"}},"spec":{"ingressClassName":"poplin","rules":[{"host":"shop.com","http":{"paths":[{"path":"/.well-known/acme-challenge/token",
"pathType":"ImplementationSpecific","backend":{"service":{"name":"cm-acme-http-solver-x","port":{"number":8089}}}}]}}]}}`)
	s.Until("the solver is reached", func() bool { return get(plain, challenge) == "200 token.thumbprint" })
	if !redirected("http://shop.com/")() {
		t.Error("the host's other paths are still redirected")
	}
	s.Put(cert.Secret("default", "shop-tls"))
	s.Until("the certificate is served", func() bool { return get(tls, "https://shop.com/") == "200 web" })
	s.Delete("Ingress default/cm-acme-http-solver-y")
	s.Until("the solver is gone", redirected(challenge))
}

// Whatever clients send, the number of series depends on Ingresses alone.
func TestMetricsDoNotGrowWithClients(t *testing.T) {
	s := api.New(t)
	for _, o := range []string{class, service("default", "web", "}}"), slice("default", "web", 11), ingressOf("web", "a.com", "web", "")} {
		s.Put(o)
	}
	pod(t, 11, name("web"))
	r := run(t, s, 101, nil)
	s.Until("it is ready", r.ready)
	c := client(nil, false, r.address)
	send := func(from, to int) {
		for n := from; n < to; n++ {
			for _, host := range []string{"a.com", fmt.Sprintf("h%d.com", n)} {
				req, err := http.NewRequest(fmt.Sprint("METHOD", n), fmt.Sprintf("http://%s/%d", host, n), nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("User-Agent", fmt.Sprint("agent ", n))
				resp, err := c.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
			}
		}
	}
	send(0, 10)
	before := series(t, r)
	send(10, 100)
	if after := series(t, r); before == 0 || after != before {
		t.Errorf("%d series before, %d after", before, after)
	}
}

// series counts ours.
func series(t *testing.T, r *replica) (n int) {
	t.Helper()
	for line := range strings.Lines(metrics(t, r.address)) {
		if strings.HasPrefix(line, "poplin_ingress_") {
			n++
		}
	}
	return n
}

// log is an access log that is read while it is written.
type log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Behind a load balancer that speaks the PROXY protocol, in either version,
// the client's address is in the back end's headers and in the log, which is
// off where an Ingress says so.
func TestProxyProtocolAndAccessLog(t *testing.T) {
	s := api.New(t)
	for _, o := range []string{
		class, service("default", "web", "}}"), slice("default", "web", 31), ingressOf("web", "a.com", "web", ""),
		strings.Replace(ingressOf("quiet", "b.com", "web", ""), `"annotations":{`, `"annotations":{"ingress.poplin.dev/enable-access-log":"false",`, 1),
	} {
		s.Put(o)
	}
	pod(t, 31, echo)
	var out log
	r := run(t, s, 101, func(c *daemon.Config) {
		c.AccessLog, c.Out = "json", &out
		c.Proxy.ProxyProtocol, c.Proxy.Trusted = true, []netip.Prefix{netip.MustParsePrefix("10.244.0.0/24")}
	})
	s.Until("it is ready", r.ready)
	v2 := append([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"), 192, 0, 2, 8, 10, 244, 0, 101, 0xd4, 0x31, 0, 80)
	for client, head := range map[string]string{"192.0.2.7": "PROXY TCP4 192.0.2.7 10.244.0.101 54321 80\r\n", "192.0.2.8": string(v2)} {
		for _, host := range []string{"a.com", "b.com"} {
			c, err := net.Dial("tcp", r.address+":80")
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(c, "%sGET /by-%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\nTraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n", head, client, host)
			answer, err := io.ReadAll(c)
			c.Close()
			for _, want := range []string{"200 OK", "X-Forwarded-For: " + client + "\r\n", "X-Real-Ip: " + client + "\r\n", "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"} {
				if err != nil || !strings.Contains(string(answer), want) {
					t.Errorf("want %q from the back end, got %v %q", want, err, answer)
				}
			}
		}
	}
	s.Until("both requests are in the log", func() bool { return strings.Count(out.String(), "\n") >= 2 })
	for line := range strings.Lines(out.String()) {
		var l struct {
			Client string `json:"remote_addr"`
			URI    string `json:"request_uri"`
			Host   string `json:"host"`
			Status int    `json:"status"`
			ID     string `json:"req_id"`
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.URI != "/by-"+l.Client || l.Host != "a.com" || l.Status != 200 || l.ID == "" {
			t.Errorf("%v in %s", err, line)
		}
	}
}
