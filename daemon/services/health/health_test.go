package health

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/services"
	"poplin.dev/poplin/test/await"
)

// free is a port of loopback that nobody has.
func free(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return netip.MustParseAddrPort(ln.Addr().String())
}

type answered struct {
	code   int
	header http.Header
	body   map[string]any
}

func ask(url string) (a answered, err error) {
	resp, err := http.Get(url)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil {
		err = json.Unmarshal(b, &a.body)
	}
	a.code, a.header = resp.StatusCode, resp.Header
	return a, err
}

func TestHealth(t *testing.T) {
	var (
		mu     sync.Mutex
		node   = Node{Healthy: true, Updated: time.Now(), Eligible: true, Addresses: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
		failed []string
	)
	node.Families = node.Addresses
	change := func(f func()) {
		mu.Lock()
		defer mu.Unlock()
		f()
	}
	healthz, alone := free(t), make(chan struct{})
	m := New(Deps{
		Healthz: healthz.String(), Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Alone: func() { close(alone) },
		Node: func() Node { mu.Lock(); defer mu.Unlock(); return node },
		Failed: func(key service.Key, message string) {
			change(func() { failed = append(failed, key.String()+": "+message) })
		},
	})
	// At first, a kube-proxy has the port.
	ln, err := net.Listen("tcp", healthz.String())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = m.Run(ctx) }()
	defer func() { stop(); <-done }()
	select {
	case <-alone:
		t.Error("alone, beside a kube-proxy")
	case <-time.After(10 * time.Millisecond):
	}
	ln.Close()
	<-alone

	expect := func(path string, code int, fields map[string]any) {
		t.Helper()
		a, err := ask("http://" + healthz.String() + path)
		if err != nil || a.code != code || a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %+v, %v; want %d", path, a, err, code)
		}
		for k, v := range fields {
			if a.body[k] != v {
				t.Errorf("%s: %s is %v, want %v", path, k, a.body[k], v)
			}
		}
		if status, _ := a.body["status"].(map[string]any); status["IPv4"] == nil || status["IPv6"] != nil {
			t.Errorf("%s: families %v", path, a.body["status"])
		}
	}
	expect("/healthz", 200, map[string]any{"healthy": true, "nodeEligible": true})
	change(func() { node.Eligible = false })
	expect("/healthz", 503, map[string]any{"healthy": true, "nodeEligible": false})
	expect("/livez", 200, map[string]any{"healthy": true, "nodeEligible": nil})
	change(func() { node.Eligible, node.Healthy = true, false })
	expect("/healthz", 503, map[string]any{"healthy": false})
	expect("/livez", 503, map[string]any{"healthy": false})

	// A Service's port, which somebody else has at first.
	port, key := free(t), service.Key{Namespace: "shop", Name: "web"}
	if ln, err = net.Listen("tcp", port.String()); err != nil {
		t.Fatal(err)
	}
	m.Set(key, &services.Health{Port: port.Port(), Endpoints: 2})
	await.Success(t, 10*time.Second, func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(failed) != 1 || !strings.HasPrefix(failed[0], "shop/web: cannot answer at health-check port "+port.String()) {
			return io.ErrNoProgress
		}
		return nil
	})
	ln.Close()
	var a answered
	await.Success(t, 10*time.Second, func() (err error) { a, err = ask("http://" + port.String()); return err })
	if a.code != 503 || a.body["serviceProxyHealthy"] != false {
		t.Errorf("unhealthy: %+v", a)
	}
	change(func() { node.Healthy = true })
	a, err = ask("http://" + port.String() + "/any/path")
	name, _ := a.body["service"].(map[string]any)
	if err != nil || a.code != 200 || a.body["localEndpoints"] != 2.0 || a.body["serviceProxyHealthy"] != true ||
		name["namespace"] != "shop" || name["name"] != "web" || a.header.Get("X-Load-Balancing-Endpoint-Weight") != "2" {
		t.Errorf("healthy: %+v, %v", a, err)
	}
	m.Set(key, &services.Health{Port: port.Port()})
	if a, err = ask("http://" + port.String()); err != nil || a.code != 503 || a.body["localEndpoints"] != 0.0 {
		t.Errorf("without endpoints: %+v, %v", a, err)
	}
	m.Set(key, nil)
	await.Success(t, 10*time.Second, func() error {
		if _, err := ask("http://" + port.String()); err == nil {
			return io.ErrNoProgress
		}
		return nil
	})
}
