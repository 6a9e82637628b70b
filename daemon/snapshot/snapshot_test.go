package snapshot

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"poplin.dev/poplin/pkg/cluster"
)

// api is the Source: an API server that answers or does not.
type api struct {
	mu      sync.Mutex
	self    *cluster.Self
	nodes   []cluster.Node // nil: no answer yet
	changed []func()
}

func (a *api) Self() (cluster.Self, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.self == nil {
		return cluster.Self{}, false
	}
	return *a.self, true
}

func (a *api) Nodes() ([]cluster.Node, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.nodes, a.nodes != nil
}

func (a *api) Subscribe(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.changed = append(a.changed, f)
}

func (a *api) answer(self *cluster.Self, nodes []cluster.Node) {
	a.mu.Lock()
	a.self, a.nodes = self, nodes
	list := a.changed
	a.mu.Unlock()
	for _, f := range list {
		f()
	}
}

const grace = 3 * time.Second

func start(t *testing.T, source Source, path string) (*Keeper, func()) {
	t.Helper()
	k := New(Deps{Source: source, Node: "worker-1", Path: path, Grace: grace, Log: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()
	return k, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

var (
	self = cluster.Self{Name: "worker-1", UID: "u1", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}
	peers = []cluster.Node{{Name: "worker-2", MTU: 1450, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("fd00:10:244:2::/64")},
		Created: time.Unix(1700000000, 0).UTC(), VTEP: cluster.VTEP{Addr: netip.MustParseAddr("192.0.2.2"), MAC: cluster.MACOf("u2")}}}
)

// TestSnapshot: a view is kept over a restart, used only when the API server
// does not answer in time, and given up when it does.
func TestSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "state", "nodes.json")
		first := &api{}
		k, stop := start(t, first, path)
		time.Sleep(2 * grace)
		if _, ok := k.Nodes(); ok || !k.Stale().IsZero() {
			t.Error("nodes from nowhere")
		}
		first.answer(&self, peers)
		time.Sleep(time.Minute)
		stop()
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Fatalf("file: %v, %v", info, err)
		}

		later := &api{}
		k, stop = start(t, later, path)
		defer stop()
		told := make(chan struct{}, 10)
		k.Subscribe(func() { told <- struct{}{} })
		time.Sleep(grace / 2)
		if _, ok := k.Self(); ok {
			t.Error("the API server was not waited for")
		}
		<-told
		gotSelf, ok := k.Self()
		gotNodes, ok2 := k.Nodes()
		if !ok || !ok2 || !reflect.DeepEqual(gotSelf, self) || !reflect.DeepEqual(gotNodes, peers) {
			t.Errorf("got %+v %+v", gotSelf, gotNodes)
		}
		if k.Stale().IsZero() {
			t.Error("not called stale")
		}
		later.answer(nil, []cluster.Node{})
		if _, ok := k.Self(); ok || !k.Stale().IsZero() {
			t.Error("this node has left the cluster, and is still there")
		}
	})
}

// TestFormerRanges: what the Node had before is remembered, over restarts too,
// until it has it again.
func TestFormerRanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "nodes.json")
		a, b := netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("10.244.9.0/24")
		source := &api{}
		k, stop := start(t, source, path)
		check := func(now, want []netip.Prefix) {
			t.Helper()
			source.answer(&cluster.Self{Name: "worker-1", PodCIDRs: now}, peers)
			if got, _ := k.Self(); !slices.Equal(got.Former, want) {
				t.Errorf("with %v: former %v, want %v", now, got.Former, want)
			}
			time.Sleep(time.Minute) // until it is saved
		}
		check([]netip.Prefix{a}, nil)
		check(nil, nil) // the Node is made anew
		check([]netip.Prefix{b}, []netip.Prefix{a})
		stop()
		k, stop = start(t, source, path)
		defer stop()
		check([]netip.Prefix{b}, []netip.Prefix{a})
		check([]netip.Prefix{a}, []netip.Prefix{b})
	})
}

func TestAnotherLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "nodes.json")
		_, stop := start(t, &api{self: &self, nodes: peers}, path)
		time.Sleep(time.Minute)
		stop()
		reborn := self
		reborn.UID = "u2"
		k, stop := start(t, &api{self: &reborn}, path)
		defer stop()
		time.Sleep(2 * grace)
		if _, ok := k.Nodes(); ok {
			t.Error("nodes of an earlier life of this node")
		}
	})
}

func TestBadFiles(t *testing.T) {
	for name, text := range map[string]string{
		"empty":             "",
		"half":              `{"Version":1,"Self":{"Na`,
		"another version":   `{"Version":2,"Self":{"Name":"worker-1"}}`,
		"another node":      `{"Version":1,"Self":{"Name":"worker-2"}}`,
		"wrong kind":        `[]`,
		"unreadable prefix": `{"Version":1,"Self":{"Name":"worker-1","PodCIDRs":["x"]}}`,
	} {
		path := filepath.Join(t.TempDir(), "nodes.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if v, err := load(path, "worker-1"); err == nil {
			t.Errorf("%s: accepted as %+v", name, v)
		}
	}
}
