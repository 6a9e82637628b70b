// Package ingress tests poplin-ingress as a whole: the real program against an
// API server in memory, with real sockets, in a network namespace of its own.
package ingress

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	daemon "poplin.dev/poplin/daemon/ingress"
	"poplin.dev/poplin/pkg/apply/proxy"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/ingress"
	"poplin.dev/poplin/test/certificate"
	"poplin.dev/poplin/test/ingress/api"
	"poplin.dev/poplin/test/ingress/traffic"
	"poplin.dev/poplin/test/need"
)

const inside = "POPLIN_TEST_INSIDE"

// TestMain runs the tests in a child process, whose network namespace goes
// with it: pods' addresses are put on its loopback.
func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		os.Exit(m.Run()) // each test says what it needs
	}
	if os.Getenv(inside) == "" {
		c := exec.Command(os.Args[0], os.Args[1:]...)
		c.Env = append(os.Environ(), inside+"=1")
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		if err := c.Run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := addresses(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare the network namespace:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func addresses() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	for _, a := range []string{"10.244.0.0/24", "fd00:10:244::1/128"} {
		addr, err := netlink.ParseAddr(a)
		if err != nil {
			return err
		}
		if err := netlink.AddrAdd(lo, addr); err != nil {
			return err
		}
	}
	return nil
}

// replica is one running poplin-ingress.
type replica struct {
	t       *testing.T
	address string
	stop    context.CancelFunc
	ended   chan error
}

// run starts a replica at 10.244.0.LAST.
func run(t *testing.T, s *api.Server, last int, change func(*daemon.Config)) *replica {
	t.Helper()
	need.Root(t)
	r := &replica{t: t, address: fmt.Sprintf("10.244.0.%d", last), ended: make(chan error, 1)}
	cfg := daemon.Config{
		HTTP: r.address + ":80", HTTPS: r.address + ":443", Health: r.address + ":9411", Metrics: r.address + ":9410", Kubeconfig: s.Kubeconfig(),
		Compile: ingress.Config{Controllers: []string{ingress.Controller}},
		Proxy:   proxy.Config{Withdraw: 300 * time.Millisecond, Drain: 10 * time.Second},
		Front:   cluster.ObjectName{Namespace: "poplin-system", Name: "poplin-ingress"},
		Pod:     fmt.Sprint("pod-", last), Address: netip.MustParseAddr(r.address), AccessLog: "off", Out: io.Discard,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&cfg)
	}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	go func() {
		err := daemon.Run(ctx, cfg)
		if err != nil {
			t.Logf("a replica ended: %v", err)
		}
		r.ended <- err
	}()
	t.Cleanup(func() {
		r.stop()
		select {
		case <-r.ended:
		case <-time.After(30 * time.Second):
			t.Error("a replica does not stop")
		}
	})
	return r
}

func (r *replica) ready() bool {
	resp, err := http.Get("http://" + r.address + ":9411/readyz")
	if err != nil {
		return false
	}
	resp.Body.Close()
	return resp.StatusCode == 200
}

// client connects to the first replica that takes it, whatever the URL's host.
func client(roots *x509.CertPool, http2 bool, addresses ...string) *http.Client {
	return traffic.Client(to(func() []string { return addresses }), roots, http2)
}

// to dials the first of some addresses that takes the connection.
func to(addresses func() []string) traffic.Dial {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(address)
		for _, a := range addresses() {
			var c net.Conn
			if c, err = (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(a, port)); err == nil {
				return c, nil
			}
		}
		return nil, err
	}
}

// get is status and body.
func get(c *http.Client, url string) string { return traffic.Get(c, url) }

// pod serves HTTP with and without version 2 at 10.244.0.LAST:8080.
func pod(t *testing.T, last int, h http.HandlerFunc) (stop func()) {
	t.Helper()
	need.Root(t)
	l, err := net.Listen("tcp", fmt.Sprintf("10.244.0.%d:8080", last))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	go s.Serve(l)
	stop = func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		s.Shutdown(ctx)
		s.Close()
	}
	t.Cleanup(stop)
	return stop
}

func name(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) }
}

const class = `{"apiVersion":"networking.k8s.io/v1","kind":"IngressClass","metadata":{"name":"poplin"},"spec":{"controller":"poplin.dev/ingress"}}`

func service(namespace, name, rest string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Service","metadata":{"namespace":%q,"name":%q},"spec":{"ports":[{"name":"http","port":80}],"clusterIPs":["10.96.0.9"]%s`, namespace, name, rest)
}

// slice has ready endpoints at 10.244.0.LAST.
func slice(namespace, name string, lasts ...int) string {
	var e []string
	for _, n := range lasts {
		e = append(e, fmt.Sprintf(`{"addresses":["10.244.0.%d"],"conditions":{"ready":true}}`, n))
	}
	return fmt.Sprintf(`{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"namespace":%q,"name":"%s-1","labels":{"kubernetes.io/service-name":%q}},"addressType":"IPv4","ports":[{"name":"http","port":8080}],"endpoints":[%s]}`,
		namespace, name, name, strings.Join(e, ","))
}

// ingressOf sends a host to a Service of namespace default.
func ingressOf(name, host, service, more string) string {
	return fmt.Sprintf(`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"namespace":"default","name":%q,"annotations":{"ingress.poplin.dev/ssl-redirect":"false"}},
"spec":{"ingressClassName":"poplin"%s,"rules":[{"host":%q,"http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":%q,"port":{"number":80}}}}]}}]}}`, name, more, host, service)
}

// certificateFor makes one.
func certificateFor(t *testing.T, hosts ...string) *certificate.Certificate {
	t.Helper()
	c, err := certificate.New(hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
