package conflist

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"

	"poplin.dev/poplin/plugins/poplin/conf"
	"poplin.dev/poplin/test/golden"
)

var dual = Node{
	PodCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")},
	Addresses: []netip.Addr{netip.MustParseAddr("172.30.0.11"), netip.MustParseAddr("fd00:30::11")},
	MTU:       1450,
}

func TestCompile(t *testing.T) {
	tests := []struct {
		name   string
		config Config
		node   Node
	}{
		{"dual", Config{Name: "poplin", Capabilities: map[string]bool{"ips": true}, ReadyFile: "/run/poplin/ready"}, dual},
		{"policies", Config{Name: "poplin"}, Node{PodCIDRs: dual.PodCIDRs, Addresses: dual.Addresses, MTU: 1450, PolicySocket: "/run/poplin/poplind.sock"}},
		{"ipv6", Config{Name: "poplin"}, Node{PodCIDRs: dual.PodCIDRs[1:], Addresses: dual.Addresses[1:], MTU: 1430}},
		{"chain", Config{Name: "cbr0", Plugins: []json.RawMessage{[]byte(`{"type":"portmap","capabilities":{"portMappings":true}}`), []byte(`{"type":"bandwidth"}`)}}, dual},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := compile(tt.config, tt.node)
			if err != nil {
				t.Fatal(err)
			}
			golden.Equal(t, filepath.Join("testdata", tt.name+".conflist"), string(got))
			// What a runtime makes of it.
			list, err := libcni.NetworkConfFromBytes(got)
			if err != nil {
				t.Fatal(err)
			}
			if list.Name != tt.config.Name || list.CNIVersion != "1.1.0" || len(list.Plugins) != 1+len(tt.config.Plugins) {
				t.Errorf("a runtime reads name %s, version %s, %d plugins", list.Name, list.CNIVersion, len(list.Plugins))
			}
			// What the plugin makes of it: it refuses keys that it does not know.
			first, err := libcni.InjectConf(list.Plugins[0], map[string]any{"name": list.Name, "cniVersion": list.CNIVersion})
			if err != nil {
				t.Fatal(err)
			}
			c, err := conf.Parse(first.Bytes, "")
			if err != nil || c.MTU != tt.node.MTU || !slices.Equal(c.NodeAddresses, tt.node.Addresses) || c.IPAM != conf.HostLocal || c.PolicySocket != tt.node.PolicySocket {
				t.Errorf("the plugin reads %+v, %v", c, err)
			}
		})
	}
}

type fixture struct {
	*Module
	t     *testing.T
	dir   string
	ready string

	mu        sync.Mutex
	announced int
	refuse    error
	states    []State
}

func start(t *testing.T) *fixture {
	f := &fixture{t: t, dir: t.TempDir(), ready: filepath.Join(t.TempDir(), "run", "ready")}
	f.Module = New(Deps{
		Config: Config{Dir: f.dir, Name: "poplin", ReadyFile: f.ready},
		Announce: func(context.Context) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.announced++
			return f.refuse
		},
		Report: func(s State) { f.mu.Lock(); defer f.mu.Unlock(); f.states = append(f.states, s) },
		Log:    slog.New(slog.NewTextHandler(t.Output(), nil)),
		Resync: 30 * time.Millisecond,
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return f
}

func (f *fixture) until(what string, true func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !true(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("not within 10 s: %s; waiting for %q", what, f.Waiting())
		}
	}
}

func (f *fixture) text() string {
	b, _ := os.ReadFile(filepath.Join(f.dir, File))
	return string(b)
}

func (f *fixture) passes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.states)
}

func TestModule(t *testing.T) {
	f := start(t)
	select {
	case <-f.Ready():
		t.Error("ready before the overlay is in place")
	case <-time.After(90 * time.Millisecond): // three times Resync
	}
	if f.text() != "" || f.announced != 0 || !strings.Contains(f.Waiting(), "overlay") {
		t.Fatalf("before the overlay is in place: file %q, waiting for %q", f.text(), f.Waiting())
	}

	f.Set(dual)
	<-f.Ready()
	f.until("nothing is waited for", func() bool { return f.Waiting() == "" })
	want := f.text()
	if !strings.Contains(want, "10.244.1.0/24") || f.announced == 0 {
		t.Errorf("announced %d times, file %s", f.announced, want)
	}

	// Untouched while it is right, although it is looked at.
	before, _ := os.Stat(filepath.Join(f.dir, File))
	n := f.passes()
	f.until("it is looked at", func() bool { return f.passes() > n+2 })
	if after, _ := os.Stat(filepath.Join(f.dir, File)); !os.SameFile(before, after) {
		t.Error("a right file was written again")
	}
	for _, spoil := range []func(path string) error{os.Remove, func(path string) error { return os.Truncate(path, 3) }} {
		if err := spoil(filepath.Join(f.dir, File)); err != nil {
			t.Fatal(err)
		}
		f.until("it is restored", func() bool { return f.text() == want })
	}

	other := dual
	other.MTU = 1400
	f.Set(other)
	f.until("the MTU follows", func() bool { return strings.Contains(f.text(), "1400") })
}

// TestReadyFile: it says whether pods may start, and the conflist is left to
// those that have started.
func TestReadyFile(t *testing.T) {
	f := start(t)
	says := func(want string) func() bool {
		return func() bool { b, err := os.ReadFile(f.ready); return err == nil && string(b) == want }
	}
	f.Hold("the Node has no spec.podCIDRs")
	f.until("it is held", says("the Node has no spec.podCIDRs\n"))
	if f.text() != "" || !strings.Contains(f.Waiting(), "podCIDRs") {
		t.Errorf("file %q, waiting for %q", f.text(), f.Waiting())
	}
	f.Set(dual)
	f.until("it is ready", says(""))
	f.until("nothing is waited for", func() bool { return f.Waiting() == "" })
	conflist := f.text()
	f.Hold("the Node has no InternalIP")
	f.until("it is held again", says("the Node has no InternalIP\n"))
	if f.text() != conflist {
		t.Errorf("the conflist became %q", f.text())
	}
	f.Set(dual)
	f.until("it is ready again", says(""))
	if err := os.Remove(f.ready); err != nil {
		t.Fatal(err)
	}
	f.until("it is restored", says(""))
}

func TestModuleReportsOtherNetworks(t *testing.T) {
	f := start(t)
	for _, name := range []string{"00-other.conf", "10-calico.conflist", "05-readme.txt", "99-late.conflist"} {
		if err := os.WriteFile(filepath.Join(f.dir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f.Set(dual)
	last := func() State { f.mu.Lock(); defer f.mu.Unlock(); return f.states[len(f.states)-1] }
	<-f.Ready()
	f.until("they are reported", func() bool {
		return f.passes() > 0 && slices.Equal(last().Preferred, []string{"00-other.conf", "10-calico.conflist"})
	})
	// One of them may delegate to us, so this is no reason to hold pods up.
	if f.Waiting() != "" {
		t.Errorf("waits for %q", f.Waiting())
	}
	for _, name := range []string{"00-other.conf", "10-calico.conflist"} {
		if err := os.Remove(filepath.Join(f.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	f.until("they are gone", func() bool { return len(last().Preferred) == 0 })
}

func TestModuleTriesAgain(t *testing.T) {
	f := start(t)
	f.mu.Lock()
	f.refuse = errors.New("the API server is away")
	f.mu.Unlock()
	f.Set(dual)
	// Pods may start all the same: the runtime does not ask the API server.
	<-f.Ready()
	f.until("the failure is named", func() bool { return f.Waiting() == "the API server is away" })
	f.mu.Lock()
	f.refuse = nil
	f.mu.Unlock()
	f.until("it works again", func() bool { return f.Waiting() == "" })
}

func TestModuleWithoutDirectory(t *testing.T) {
	f := start(t)
	if err := os.Remove(f.dir); err != nil {
		t.Fatal(err)
	}
	f.Set(dual)
	f.until("the failure is named", func() bool { return strings.Contains(f.Waiting(), "write conflist") })
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f.until("it is written", func() bool { return f.text() != "" && f.Waiting() == "" })
}
