package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

type fixture struct {
	*Module
	t *testing.T

	mu     sync.Mutex
	alive  error
	report Report
}

// freeAddress is one that was free a moment ago.
func freeAddress(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func start(t *testing.T, change func(*Deps)) *fixture {
	f := &fixture{t: t, report: Report{
		Node: "worker-1", Version: "1.2.3", MTU: 1450, Peers: 2, Ready: true,
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
		Tasks:    []Task{{Name: "overlay"}, {Name: "conflist", Waiting: "the overlay"}},
		Refused:  []Refusal{{"worker-9", "its range overlaps"}},
		Services: &Services{Count: 7, Elements: 99, Findings: 1},
	}}
	deps := Deps{
		Health: freeAddress(t), Metrics: freeAddress(t), Socket: filepath.Join(t.TempDir(), "run", "poplind.sock"),
		Exported: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "poplin_peers 2") }),
		Alive:    func() error { f.mu.Lock(); defer f.mu.Unlock(); return f.alive },
		Report:   func() Report { f.mu.Lock(); defer f.mu.Unlock(); return f.report },
		Log:      slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&deps)
	}
	f.Module = New(deps)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return f
}

func until(t *testing.T, what string, true func() bool) {
	t.Helper()
	for deadline := time.Now().Add(15 * time.Second); !true(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

// get returns 0 while nobody answers.
func get(address, path string) (int, string) {
	resp, err := http.Get("http://" + address + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func TestAnswers(t *testing.T) {
	f := start(t, nil)
	until(t, "health is served", func() bool { code, _ := get(f.deps.Health, "/healthz"); return code == 200 })
	until(t, "metrics are served", func() bool { code, _ := get(f.deps.Metrics, "/metrics"); return code == 200 })
	if code, body := get(f.deps.Health, "/readyz"); code != 200 || body != "overlay: ok\nconflist: waiting: the overlay\n" {
		t.Errorf("readyz: %d %q", code, body)
	}
	f.mu.Lock()
	f.alive, f.report.Ready = errors.New("the overlay hangs"), false
	f.mu.Unlock()
	if code, body := get(f.deps.Health, "/healthz"); code != 503 || !strings.Contains(body, "the overlay hangs") {
		t.Errorf("healthz: %d %q", code, body)
	}
	if code, _ := get(f.deps.Health, "/readyz"); code != 503 {
		t.Errorf("readyz: %d", code)
	}
	for _, wrong := range []string{f.deps.Health + "/metrics", f.deps.Health + "/status", f.deps.Metrics + "/healthz", f.deps.Metrics + "/debug/pprof/"} {
		address, path, _ := strings.Cut(wrong, "/")
		if code, _ := get(address, "/"+path); code != 404 {
			t.Errorf("%s: %d, want 404", wrong, code)
		}
	}
}

func TestSocket(t *testing.T) {
	f := start(t, nil)
	until(t, "the socket answers", func() bool { _, err := Read(t.Context(), f.deps.Socket); return err == nil })
	got, err := Read(t.Context(), f.deps.Socket)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(got)
	b, _ := json.Marshal(f.report)
	if string(a) != string(b) {
		t.Errorf("got %s\nwant %s", a, b)
	}
	info, err := os.Stat(f.deps.Socket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	var text strings.Builder
	if err := got.Text(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"worker-1", "1.2.3", "10.244.1.0/24", "worker-9: its range overlaps", "7, 99 elements in the kernel, 1 findings, 0 problems", "waiting: the overlay", "1450"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, text.String())
		}
	}
}

func TestSocketOfADeadDaemonIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "poplind.sock")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	ln.Close()
	if _, err := Read(t.Context(), path); err == nil || !strings.Contains(err.Error(), "is poplind running") {
		t.Errorf("nobody listens: %v", err)
	}
	start(t, func(d *Deps) { d.Socket = path })
	until(t, "the socket answers", func() bool { _, err := Read(t.Context(), path); return err == nil })
}

func TestAnAddressInUseIsReportedAndTriedAgain(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	f := start(t, func(d *Deps) { d.Metrics = taken.Addr().String() })
	until(t, "the others are served", func() bool { code, _ := get(f.deps.Health, "/healthz"); return code == 200 })
	until(t, "it is reported", func() bool { return strings.Contains(f.Waiting(), "address already in use") })
	taken.Close()
	until(t, "it is served", func() bool { code, _ := get(f.deps.Metrics, "/metrics"); return code == 200 && f.Waiting() == "" })
}

func TestNothingIsServedUnasked(t *testing.T) {
	f := New(Deps{Exported: http.NotFoundHandler()})
	if list := f.listeners(); len(list) != 0 {
		t.Errorf("listens on %v", list)
	}
}
