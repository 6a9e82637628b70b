package ingress

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	daemon "poplin.dev/poplin/daemon/ingress"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/test/certificate"
	"poplin.dev/poplin/test/ingress/api"
)

// count is how many of something a test makes: all of them where the
// environment asks for a soak.
func count(short, full int) int {
	if os.Getenv("POPLIN_SOAK") != "" {
		return full
	}
	return short
}

const front = `,"type":"LoadBalancer"},"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}`

func TestStatusAndEvents(t *testing.T) {
	s := api.New(t)
	for _, o := range []string{
		class, service("default", "web", "}}"), slice("default", "web", 11), ingressOf("web", "a.com", "web", ""),
		service("poplin-system", "poplin-ingress", front), slice("poplin-system", "poplin-ingress", 102, 101),
		strings.Replace(ingressOf("other", "b.com", "web", ""), `"ingressClassName":"poplin"`, `"ingressClassName":"nginx"`, 1),
		ingressOf("broken", "c.com", "missing", `,"tls":[{"hosts":["c.com"],"secretName":"none"}]`),
	} {
		s.Put(o)
	}
	pod(t, 11, name("web"))
	one, two := run(t, s, 101, nil), run(t, s, 102, nil)
	s.Until("both are ready", func() bool { return one.ready() && two.ready() })
	has := func(what, text string) func() bool {
		return func() bool { return strings.Contains(s.Get(what), text) }
	}
	s.Until("the status has the Service's address", has("Ingress default/web", `"ingress":[{"ip":"192.0.2.1"}]`))
	s.Until("Events say what is wrong", func() bool { return len(s.All("Event")) == 2 })
	texts := fmt.Sprint(s.All("Event"))
	if !strings.Contains(texts, "Secret none for host c.com does not exist") || !strings.Contains(texts, "Service default/missing does not exist") {
		t.Error(texts)
	}
	if got := s.Get("Ingress default/other"); strings.Contains(got, "192.0.2.1") {
		t.Errorf("an Ingress of another class: %s", got)
	}
	if n := len(s.Requests("PATCH /apis/networking.k8s.io/v1/namespaces/default/ingresses/web/")); n != 1 {
		t.Errorf("%d writes of one status", n)
	}
	s.Put(service("poplin-system", "poplin-ingress", strings.Replace(front, "192.0.2.1", "192.0.2.2", 1)))
	s.Until("the status follows the Service", has("Ingress default/web", `{"ip":"192.0.2.2"}`))
	s.Put(strings.Replace(s.Get("Ingress default/web"), `"ingressClassName":"poplin"`, `"ingressClassName":"nginx"`, 1))
	s.Until("an Ingress that leaves loses its address", func() bool { return !has("Ingress default/web", "192.0.2.2")() })
	// The writer goes: the other takes over. Both go: the address goes too.
	s.Put(slice("poplin-system", "poplin-ingress", 102))
	one.stop()
	s.Put(ingressOf("late", "d.com", "web", ""))
	s.Until("the next replica writes", has("Ingress default/late", "192.0.2.2"))
	two.stop()
	s.Until("nobody answers, nothing is promised", func() bool { return !has("Ingress default/late", "192.0.2.2")() })
	permitted(t, s)
}

func TestReadyOnlyWithAConfiguration(t *testing.T) {
	s := api.New(t)
	s.Put(class)
	s.Put(service("default", "web", "}}"))
	s.Put(slice("default", "web", 11))
	s.Put(ingressOf("web", "a.com", "web", `,"tls":[{"hosts":["a.com"],"secretName":"crt"}]`))
	cert := certificateFor(t, "a.com")
	s.Put(cert.Secret("default", "crt"))
	pod(t, 11, name("web"))
	r := run(t, s, 101, nil)
	c := client(certificate.Roots(cert), false, r.address)
	var first string
	s.Until("it answers", func() bool {
		first = get(c, "https://a.com/")
		return !strings.Contains(first, "refused")
	})
	if first != "200 web" {
		t.Errorf("the first answer ever: %s", first)
	}
	s.Until("it is ready", r.ready)
	var b string
	// A request counts once its answer is out, which its client may see first.
	s.Until("it has counted a request", func() bool {
		b = metrics(t, r.address)
		return strings.Contains(b, "poplin_ingress_request_duration_seconds_count 1\n")
	})
	for _, want := range []string{
		`poplin_ingress_requests_total{code="2xx",ingress="web",namespace="default"} 1`, "poplin_ingress_hosts 1\n", "poplin_ingress_endpoints 1\n",
		"poplin_ingress_request_duration_seconds_count 1\n", "poplin_ingress_certificate_expiry_timestamp_seconds 1", "poplin_build_info",
	} {
		if !strings.Contains(b, want) {
			t.Errorf("metrics lack %q:\n%s", want, b)
		}
	}
}

func metrics(t *testing.T, address string) string {
	t.Helper()
	resp, err := http.Get("http://" + address + ":9410/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestAPIServerAway(t *testing.T) {
	s := api.New(t)
	s.Put(class)
	s.Put(service("default", "web", "}}"))
	s.Put(slice("default", "web", 11))
	s.Put(ingressOf("web", "a.com", "web", ""))
	pod(t, 11, name("web"))
	r := run(t, s, 101, nil)
	s.Until("it is ready", r.ready)
	s.Away(true)
	if got := get(client(nil, false, r.address), "http://a.com/"); got != "200 web" {
		t.Errorf("without an API server: %s", got)
	}
	s.Away(false)
	s.Put(ingressOf("late", "b.com", "web", ""))
	s.Until("changes are seen again", func() bool { return get(client(nil, false, r.address), "http://b.com/") == "200 web" })
}

// TestManyIngresses measures what thousands of hosts cost.
func TestManyIngresses(t *testing.T) {
	n := count(500, 5000)
	s := api.New(t)
	for _, o := range []string{class, service("default", "web", "}}"), slice("default", "web", 11)} {
		s.Put(o)
	}
	for i := range n {
		s.Put(ingressOf(fmt.Sprintf("i%d", i), fmt.Sprintf("h%d.com", i), "web", ""))
	}
	pod(t, 11, name("web"))
	runtime.GC()
	begin := time.Now()
	r := run(t, s, 101, func(c *daemon.Config) { c.Front = cluster.ObjectName{} })
	s.Until("it is ready", r.ready)
	took := time.Since(begin)
	t.Logf("%d Ingresses: ready after %v", n, took)
	if took > 3*time.Second {
		t.Errorf("ready after %v, want 3 s", took)
	}
	c := client(nil, false, r.address)
	var times []time.Duration
	for i := range count(20, 200) {
		host := fmt.Sprintf("new%d.com", i)
		begin := time.Now()
		s.Put(ingressOf("i7", host, "web", ""))
		s.Until("the change is live", func() bool { return get(c, "http://"+host+"/") == "200 web" })
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	t.Logf("a change is live after %v, p99 %v", times[len(times)/2], times[len(times)*99/100])
}

func TestBadSettings(t *testing.T) {
	s := api.New(t)
	for what, change := range map[string]func(*daemon.Config){
		"neither -http nor -https": func(c *daemon.Config) { c.HTTP, c.HTTPS = "", "" },
		"POD_IP":                   func(c *daemon.Config) { c.Address = daemon.Config{}.Address },
		"-access-log":              func(c *daemon.Config) { c.AccessLog = "$nonsense" },
		"port of its own":          func(c *daemon.Config) { c.Metrics = c.Health },
		"kubeconfig":               func(c *daemon.Config) { c.Kubeconfig = "/none" },
		"PROXY protocol":           func(c *daemon.Config) { c.Proxy.ProxyProtocol = true },
		"listen on":                func(c *daemon.Config) { c.HTTP = "192.0.2.1:80" },
	} {
		r := run(t, s, 101, change)
		select {
		case err := <-r.ended:
			if err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("%s: %v", what, err)
			}
			r.ended <- err
		case <-time.After(20 * time.Second):
			t.Errorf("%s: it runs", what)
		}
	}
}
