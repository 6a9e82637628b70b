package main

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/test/certificate"
	"poplin.dev/poplin/test/ingress/api"
)

//go:embed backend.conf
var backendConf string

//go:embed nginx.conf
var nginxConf string

//go:embed haproxy.cfg
var haproxyConf string

// addresses of the proxies.
var addresses = map[string]string{"nginx": "10.244.0.21", "haproxy": "10.244.0.22", "poplin": "10.244.0.23"}

// lab is the running programs. Proxies have core 0, all others core 1.
type lab struct {
	dir      string
	started  []*exec.Cmd
	pids     map[string]int
	cleanups []func()
}

func newLab(binary string) (*lab, error) {
	dir, err := os.MkdirTemp("", "poplin-bench-")
	if err != nil {
		return nil, err
	}
	l := &lab{dir: dir, pids: map[string]int{}}
	if err := errors.Join(l.network(), l.files()); err != nil {
		l.close()
		return nil, err
	}
	binary, err = filepath.Abs(binary)
	if err != nil {
		return nil, err
	}
	s := api.New(&bench{l})
	for _, o := range l.objects() {
		s.Put(o)
	}
	for _, p := range []struct {
		name, core string
		command    []string
		env        []string
	}{
		{"backend", "1", []string{"nginx", "-c", dir + "/backend.conf"}, nil},
		{"nginx", "0", []string{"nginx", "-c", dir + "/nginx.conf"}, nil},
		{"haproxy", "0", []string{"haproxy", "-f", dir + "/haproxy.cfg"}, nil},
		{"poplin", "0", []string{binary, "-http=10.244.0.23:80", "-https=10.244.0.23:443", "-health=10.244.0.23:9411", "-metrics=10.244.0.23:9410",
			"-access-log=off", "-withdraw=1ms", "-kubeconfig=" + s.Kubeconfig()}, []string{"GOMAXPROCS=1"}},
	} {
		if err := l.start(p.name, p.core, p.env, p.command...); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, l.await()
}

// bench is what the API server needs of a test.
type bench struct{ l *lab }

func (bench) Helper()                   {}
func (bench) Fatal(a ...any)            { panic(fmt.Sprint(a...)) }
func (bench) Fatalf(f string, a ...any) { panic(fmt.Sprintf(f, a...)) }
func (bench) Errorf(f string, a ...any) { fmt.Fprintf(os.Stderr, f+"\n", a...) }
func (b bench) Cleanup(f func())        { b.l.cleanups = append(b.l.cleanups, f) }
func (b bench) TempDir() string         { return b.l.dir }

func (l *lab) network() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr("10.244.0.0/24")
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(lo, addr))
}

// files writes bodies, configurations and one certificate for all.
func (l *lab) files() error {
	cert, err := certificate.New("bench.example.com")
	if err != nil {
		return err
	}
	fill := func(s string) []byte {
		return []byte(strings.NewReplacer("DIR", l.dir, "SMALL", strings.Repeat("x", 128)).Replace(s))
	}
	// The workers' user reads the bodies.
	if err := errors.Join(os.Chmod(l.dir, 0o755), os.Mkdir(l.dir+"/www", 0o755)); err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		"www/large": bytes.Repeat([]byte("x"), 100_000), "tls.crt": cert.PEM, "tls.key": cert.Key, "tls.pem": slices.Concat(cert.PEM, cert.Key),
		"backend.conf": fill(backendConf), "nginx.conf": fill(nginxConf), "haproxy.cfg": fill(haproxyConf),
	} {
		if err := os.WriteFile(filepath.Join(l.dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// objects are the cluster that poplin-ingress serves.
func (l *lab) objects() []string {
	read := func(name string) string {
		b, _ := os.ReadFile(filepath.Join(l.dir, name))
		return base64.StdEncoding.EncodeToString(b)
	}
	return []string{
		`{"apiVersion":"networking.k8s.io/v1","kind":"IngressClass","metadata":{"name":"poplin"},"spec":{"controller":"poplin.dev/ingress"}}`,
		`{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"default","name":"web"},"spec":{"ports":[{"name":"http","port":80}]}}`,
		`{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"namespace":"default","name":"web-1","labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv4","ports":[{"name":"http","port":8080}],"endpoints":[{"addresses":["10.244.0.11"]},{"addresses":["10.244.0.12"]}]}`,
		`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"namespace":"default","name":"web","annotations":{"ingress.poplin.dev/ssl-redirect":"false"}},"spec":{"ingressClassName":"poplin","tls":[{"hosts":["bench.example.com"],"secretName":"crt"}],"rules":[{"host":"bench.example.com","http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":"web","port":{"number":80}}}}]}}]}}`,
		fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"default","name":"crt"},"type":"kubernetes.io/tls","data":{"tls.crt":%q,"tls.key":%q}}`, read("tls.crt"), read("tls.key")),
	}
}

func (l *lab) start(name, core string, env []string, command ...string) error {
	c := exec.Command("taskset", append([]string{"-c", core}, command...)...)
	c.Env = append(os.Environ(), env...)
	log, err := os.Create(filepath.Join(l.dir, name+".out"))
	if err != nil {
		return err
	}
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.Start(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	l.started = append(l.started, c)
	l.pids[name] = c.Process.Pid
	return nil
}

// await waits until every proxy takes connections, encrypted ones too.
func (l *lab) await() error {
	for name, address := range addresses {
		for _, port := range []string{"80", "443"} {
			end := time.Now().Add(10 * time.Second)
			for {
				c, err := net.Dial("tcp", net.JoinHostPort(address, port))
				if err == nil {
					c.Close()
					break
				}
				if time.Now().After(end) {
					b, _ := os.ReadFile(filepath.Join(l.dir, name+".out"))
					return fmt.Errorf("%s does not listen on %s: %s", name, port, short(b))
				}
				time.Sleep(20 * time.Millisecond)
			}
		}
	}
	return nil
}

func (l *lab) close() {
	for _, c := range l.started {
		_ = c.Process.Signal(syscall.SIGTERM)
		done := make(chan struct{})
		go func() { _ = c.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			_ = c.Process.Kill()
		}
	}
	for _, f := range l.cleanups {
		f()
	}
	_ = os.RemoveAll(l.dir)
}

// used is the CPU time of a process and its children, in clock ticks.
func used(pid int) (ticks float64) {
	for _, p := range append(children(pid), pid) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p))
		if err != nil {
			continue
		}
		// The name in parentheses may hold anything.
		f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		user, _ := strconv.ParseFloat(f[11], 64)
		system, _ := strconv.ParseFloat(f[12], 64)
		ticks += user + system
	}
	return ticks
}

func children(pid int) (list []int) {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	for _, f := range strings.Fields(string(b)) {
		n, _ := strconv.Atoi(f)
		list = append(list, n)
	}
	return list
}
