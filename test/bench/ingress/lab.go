package ingress

import (
	"bytes"
	"context"
	"crypto/tls"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/test/bench/process"
	"poplin.dev/poplin/test/certificate"
	"poplin.dev/poplin/test/cni"
	"poplin.dev/poplin/test/hostile"
	"poplin.dev/poplin/test/ingress/api"
)

//go:embed backend.conf
var backendConf string

//go:embed nginx.conf
var nginxConf string

//go:embed haproxy.cfg
var haproxyConf string

const host = "bench.example.com"

// addresses of the proxies; spy is the back end of what is hostile.
var addresses = map[string]string{nginx: "10.244.0.21", haproxy: "10.244.0.22", poplin: "10.244.0.23"}

const spy = "10.244.0.13"

// lab is the running programs, in a network namespace of their own. Proxies
// have core 0, all others core 1.
type lab struct {
	dir     string
	node    *cni.Node
	cert    *certificate.Certificate
	running map[string]*process.Process
	spy     hostile.Spy
	ends    []func()
}

// onClose has f called by close, the last one first.
func (l *lab) onClose(f func()) { l.ends = append(l.ends, f) }

func (l *lab) close() {
	for i := len(l.ends) - 1; i >= 0; i-- {
		l.ends[i]()
	}
}

func newLab() (*lab, error) {
	l := &lab{running: map[string]*process.Process{}}
	if err := l.up(); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) up() (err error) {
	if l.dir, err = os.MkdirTemp("", "poplin-bench-"); err != nil {
		return err
	}
	l.onClose(func() { _ = os.RemoveAll(l.dir) })
	if l.node, err = cni.NewNode(l.dir, l.dir); err != nil {
		return err
	}
	l.onClose(l.node.Close)
	if l.cert, err = certificate.New(host, hostile.Host); err != nil {
		return err
	}
	if err := errors.Join(cni.Build(l.dir, "cmd/poplin-ingress"), l.network(), l.files()); err != nil {
		return err
	}
	if err := l.serveSpy(); err != nil {
		return err
	}
	s, err := l.api(l.objects()...)
	if err != nil {
		return err
	}
	for _, p := range []struct {
		name, core string
		args       []string
	}{
		{"backend", "1", []string{"nginx", "-c", l.dir + "/backend.conf"}},
		{nginx, "0", []string{"nginx", "-c", l.dir + "/nginx.conf"}},
		{haproxy, "0", []string{"haproxy", "-f", l.dir + "/haproxy.cfg"}},
		{poplin, "0", l.ours(addresses[poplin], s)},
	} {
		if err := l.start(p.name, p.core, p.args...); err != nil {
			return err
		}
	}
	return l.await()
}

// ours is the command line of poplin-ingress.
func (l *lab) ours(address string, s *api.Server) []string {
	return []string{
		l.dir + "/poplin-ingress", "-http=" + address + ":80", "-https=" + address + ":443", "-health=" + address + ":9411", "-metrics=" + address + ":9410",
		"-access-log=off", "-withdraw=1ms", "-kubeconfig=" + s.Kubeconfig(),
	}
}

func (l *lab) network() error {
	lo, err := l.node.Link.LinkByName("lo")
	if err != nil {
		return err
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(10, 244, 0, 0), Mask: net.CIDRMask(24, 32)}}
	return errors.Join(l.node.Link.LinkSetUp(lo), l.node.Link.AddrAdd(lo, addr))
}

// files writes bodies, configurations and one certificate for all.
func (l *lab) files() error {
	fill := func(s string) []byte {
		return []byte(strings.NewReplacer("DIR", l.dir, "SMALL", strings.Repeat("x", 128)).Replace(s))
	}
	// The workers' user reads the bodies.
	if err := errors.Join(os.Chmod(l.dir, 0o755), os.Mkdir(l.dir+"/www", 0o755)); err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"www/large": bytes.Repeat([]byte("x"), 100_000), "tls.crt": l.cert.PEM, "tls.key": l.cert.Key, "tls.pem": append(l.cert.PEM[:len(l.cert.PEM):len(l.cert.PEM)], l.cert.Key...),
		"backend.conf": fill(backendConf), "nginx.conf": fill(nginxConf), "haproxy.cfg": fill(haproxyConf),
	} {
		if err := os.WriteFile(filepath.Join(l.dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

const class = `{"apiVersion":"networking.k8s.io/v1","kind":"IngressClass","metadata":{"name":"poplin"},"spec":{"controller":"poplin.dev/ingress"}}`

// service is a Service with ready endpoints.
func service(name string, addresses ...string) []string {
	return []string{
		fmt.Sprintf(`{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"default","name":%q},"spec":{"ports":[{"name":"http","port":80}]}}`, name),
		fmt.Sprintf(`{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"namespace":"default","name":"%s-1","labels":{"kubernetes.io/service-name":%q}},"addressType":"IPv4","ports":[{"name":"http","port":8080}],"endpoints":[{"addresses":["%s"]}]}`,
			name, name, strings.Join(addresses, `"]},{"addresses":["`)),
	}
}

// ingress sends what is below a path of a host to a Service, with TLS or not.
func ingress(name, host, path, service, tls string) string {
	return fmt.Sprintf(`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"namespace":"default","name":%q,"annotations":{"ingress.poplin.dev/ssl-redirect":"false"}},"spec":{"ingressClassName":"poplin"%s,"rules":[{"host":%q,"http":{"paths":[{"path":%q,"pathType":"Prefix","backend":{"service":{"name":%q,"port":{"number":80}}}}]}}]}}`,
		name, tls, host, path, service)
}

// objects are the cluster that poplin-ingress serves.
func (l *lab) objects() []string {
	tls := fmt.Sprintf(`,"tls":[{"hosts":[%q,%q],"secretName":"crt"}]`, host, hostile.Host)
	objects := append(service("web", "10.244.0.11", "10.244.0.12"), service("spy", spy)...)
	return append(objects, class, l.cert.Secret("default", "crt"),
		ingress("web", host, "/", "web", tls), ingress("spy", hostile.Host, "/", "spy", tls), ingress("guarded", hostile.Guarded, "/public", "spy", ""))
}

// api is an API server with objects, on the namespace's loopback device.
func (l *lab) api(objects ...string) (s *api.Server, err error) {
	if err := l.node.Do(func() { s = api.New(server{l}) }); err != nil {
		return nil, err
	}
	for _, o := range objects {
		s.Put(o)
	}
	return s, nil
}

// server is what the API server needs of a test.
type server struct{ l *lab }

func (server) Helper()                   {}
func (server) Fatal(a ...any)            { panic(fmt.Sprint(a...)) }
func (server) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (server) Errorf(f string, a ...any) { fmt.Fprintf(os.Stderr, f+"\n", a...) }
func (s server) Cleanup(f func())        { s.l.onClose(f) }
func (s server) TempDir() string {
	dir, err := os.MkdirTemp(s.l.dir, "api-")
	if err != nil {
		panic(err)
	}
	return dir
}

func (l *lab) start(name, core string, args ...string) error {
	// One thread for Go, as the others have.
	p, err := process.Start(l.node, filepath.Join(l.dir, name+".out"), []string{"GOMAXPROCS=1"}, append([]string{"taskset", "-c", core}, args...)...)
	if err != nil {
		return err
	}
	l.onClose(p.Stop)
	l.running[name] = p
	return nil
}

// await waits until every proxy takes connections, encrypted ones too.
func (l *lab) await() error {
	for name := range addresses {
		for _, port := range []string{"80", "443"} {
			for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
				c, err := l.dial(context.Background(), "tcp", addresses[name]+":"+port)
				if err == nil {
					c.Close()
					break
				}
				if time.Now().After(end) {
					return errors.Join(fmt.Errorf("%s does not listen on port %s: %w", name, port, err), l.running[name].Alive())
				}
			}
		}
	}
	return nil
}

// dial connects inside the namespace.
func (l *lab) dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	if inErr := l.node.Do(func() { c, err = new(net.Dialer).DialContext(ctx, network, address) }); inErr != nil {
		return nil, inErr
	}
	return c, err
}

func (l *lab) serveSpy() error {
	var listener net.Listener
	var err error
	if inErr := l.node.Do(func() {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(spy), 8080)))
	}); inErr != nil || err != nil {
		return errors.Join(inErr, err)
	}
	s := &http.Server{Handler: &l.spy}
	go func() { _ = s.Serve(listener) }() // it ends when it is closed
	l.onClose(func() { _ = s.Close() })
	return nil
}

// attack sends hostile input to the proxy that is measured.
func (l *lab) attack() (rows int, wrong []string) {
	dial := func(port string) (net.Conn, error) {
		return l.dial(context.Background(), "tcp", addresses[poplin]+":"+port)
	}
	return hostile.Proxy{Spy: &l.spy, Dial: map[string]func() (net.Conn, error){
		"plain": func() (net.Conn, error) { return dial("80") },
		"TLS": func() (net.Conn, error) {
			c, err := dial("443")
			if err != nil {
				return nil, err
			}
			return tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: hostile.Host}), nil
		},
	}}.Attack()
}
