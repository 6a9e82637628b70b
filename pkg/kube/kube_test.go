package kube_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/kube"
	"poplin.dev/poplin/pkg/kube/kubetest"
)

const (
	nodes    = "/api/v1/nodes"
	networks = "/apis/poplin.dev/v1alpha1/nodenetworks"
	slicesOf = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
)

type object = kubetest.Object

func node(name string, podCIDRs []string, conditions ...object) object {
	return object{
		"apiVersion": "v1", "kind": "Node",
		"metadata": object{"name": name, "uid": "uid-" + name},
		"spec":     object{"podCIDRs": podCIDRs},
		"status": object{
			"addresses": []object{
				{"type": "Hostname", "address": name},
				{"type": "InternalIP", "address": "172.30.0.11"},
				{"type": "InternalIP", "address": "172.30.9.9"},
				{"type": "InternalIP", "address": "fd00:30::11"},
			},
			"conditions": conditions,
		},
	}
}

func peer(i int) cluster.Node {
	return cluster.Node{
		Name:     fmt.Sprintf("worker-%d", i),
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i)), netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", i))},
		VTEP:     cluster.VTEP{Addr: netip.MustParseAddr(fmt.Sprintf("172.30.0.%d", 10+i)), MAC: cluster.MACOf(fmt.Sprint("uid-worker-", i))},
		MTU:      1450,
	}
}

func network(n cluster.Node) object {
	return object{
		"apiVersion": "poplin.dev/v1alpha1", "kind": "NodeNetwork",
		"metadata": object{"name": n.Name},
		"spec": object{
			"podCIDRs": n.PodCIDRs, "mtu": n.MTU,
			"vtep": object{"address": n.VTEP.Addr, "mac": n.VTEP.MAC.String()},
		},
	}
}

// client runs a client of worker-1 until the test ends.
func client(t *testing.T, s *kubetest.Server, change func(*kube.Config)) *kube.Client {
	t.Helper()
	cfg := kube.Config{
		NodeName: "worker-1", Endpoints: []string{s.URL()}, Credentials: s.Credentials(),
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	if change != nil {
		change(&cfg)
	}
	c, err := kube.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c
}

func known(c *kube.Client) string {
	list, ok := c.Nodes()
	if !ok {
		return "not complete"
	}
	var names []string
	for _, n := range list {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestViewFollowsTheCluster(t *testing.T) {
	for _, streams := range []bool{true, false} {
		t.Run(fmt.Sprintf("streams=%v", streams), func(t *testing.T) {
			s := kubetest.New(t)
			if !streams {
				s.NoStreams()
			}
			s.Put(networks, network(peer(2)))
			events := &attempts{}
			c := client(t, s, func(cfg *kube.Config) { cfg.Observer = events })
			// What a subscriber saw, call by call.
			var mu sync.Mutex
			var told []string
			c.Subscribe(func() {
				self, _ := c.Self()
				view := fmt.Sprint(len(self.PodCIDRs), " ", known(c))
				mu.Lock()
				told = append(told, view)
				mu.Unlock()
			})
			last := func() (calls int, view string) {
				mu.Lock()
				defer mu.Unlock()
				if len(told) == 0 {
					return 0, ""
				}
				return len(told), told[len(told)-1]
			}
			tells := func(want string) func() bool { return func() bool { _, view := last(); return view == want } }

			s.Until("the absent node is named", func() bool { return strings.Contains(c.Waiting(), "Node worker-1 does not exist") })
			if _, ok := c.Self(); ok {
				t.Error("there is no Node, but Self is known")
			}
			s.Put(nodes, node("worker-1", nil))
			s.Put(nodes, node("worker-2", []string{"10.244.2.0/24"}))
			s.Until("the node is read", func() bool { _, ok := c.Self(); return ok })
			<-c.Ready()
			self, _ := c.Self()
			want := cluster.Self{Name: "worker-1", UID: "uid-worker-1", Addresses: []netip.Addr{netip.MustParseAddr("172.30.0.11"), netip.MustParseAddr("fd00:30::11")}}
			if fmt.Sprint(self) != fmt.Sprint(want) {
				t.Errorf("self: got %+v, want %+v", self, want)
			}
			if c.Waiting() != "" {
				t.Errorf("waits for %q", c.Waiting())
			}
			s.Put(nodes, node("worker-1", []string{"10.244.1.0/24", "fd00:10:244:1::/64"}))
			s.Until("the ranges are read", tells("2 worker-2"))

			s.Put(networks, network(peer(3)))
			s.Until("a node comes", tells("2 worker-2 worker-3"))
			list, _ := c.Nodes()
			if !list[0].Equal(peer(2)) || !list[1].Equal(peer(3)) || list[0].Created.IsZero() {
				t.Errorf("got %+v", list)
			}
			s.Delete(networks + "/worker-2")
			s.Until("a node goes", tells("2 worker-3"))

			// A kubelet's heartbeat changes nothing that matters.
			before, _ := last()
			s.Put(nodes, node("worker-1", []string{"10.244.1.0/24", "fd00:10:244:1::/64"}, object{"type": "Ready", "status": "True"}))
			s.Put(networks, network(peer(4)))
			s.Until("the next node comes", tells("2 worker-3 worker-4"))
			if calls, _ := last(); calls != before+1 {
				t.Errorf("%d changes were told, want 1", calls-before)
			}
			// What the first list brought is no event.
			if n := events.heard("nodenetworks"); n != 3 {
				t.Errorf("%d events of NodeNetworks, want 3", n)
			}
		})
	}
}

func TestViewOutlivesTheAPIServer(t *testing.T) {
	s := kubetest.New(t)
	s.Put(nodes, node("worker-1", []string{"10.244.1.0/24"}))
	s.Put(networks, network(peer(2)))
	s.Put(networks, network(peer(3)))
	var log buffer
	failed := &attempts{}
	c := client(t, s, func(cfg *kube.Config) { cfg.Log, cfg.Observer = slog.New(slog.NewTextHandler(&log, nil)), failed })
	<-c.Ready()

	address := s.Address()
	s.Stop()
	s.Until("it was tried often", func() bool { return failed.count() > 5 })
	if n := strings.Count(log.String(), "level=WARN"); n > 6 {
		t.Errorf("an outage is %d lines of log, want one or two for each resource:\n%s", n, log.String())
	}
	s.Delete(networks + "/worker-3") // nobody sees this
	s.Put(networks, network(peer(4)))
	if known(c) != "worker-2 worker-3" || c.Waiting() != "" {
		t.Errorf("the API server is away: know %s, wait for %q", known(c), c.Waiting())
	}
	s.Start(address)
	s.Until("the watch resumes", func() bool { return known(c) == "worker-2 worker-4" })

	s.Delete(networks + "/worker-2")
	s.Expire()
	s.Put(networks, network(peer(5)))
	s.Until("a new list replaces an expired watch", func() bool { return known(c) == "worker-4 worker-5" })
}

func TestMalformedPeersAreSkippedByName(t *testing.T) {
	s := kubetest.New(t)
	s.Put(nodes, node("worker-1", []string{"10.244.1.0/24"}))
	s.Put(networks, network(peer(2)))
	bad := map[string]any{
		"spec: json":               object{"podCIDRs": "10.244.3.0/24"},
		"no IP address":            object{"podCIDRs": []string{"10.244.3.0/24"}, "vtep": object{"address": "172.30.0"}},
		"MAC":                      object{"podCIDRs": []string{"10.244.3.0/24"}, "vtep": object{"address": "172.30.0.1", "mac": "x"}},
		"no network address":       object{"podCIDRs": []string{"10.244.3.1/24"}, "vtep": object{"address": "172.30.0.1", "mac": "02:00:00:00:00:01"}},
		"no range of addresses":    object{"podCIDRs": []string{"10.244.3.1"}},
		"outside 1240..65535":      object{"podCIDRs": []string{"10.244.3.0/24"}, "vtep": object{"address": "172.30.0.1", "mac": "02:00:00:00:00:01"}, "mtu": 9},
		"unexpected end":           nil,
		"cannot unmarshal string":  "a string",
		"no unicast address":       object{"podCIDRs": []string{"10.244.3.0/24"}, "vtep": object{"address": "224.0.0.1", "mac": "02:00:00:00:00:01"}},
		"more than one range of a": object{"podCIDRs": []string{"10.244.3.0/24", "10.244.4.0/24"}, "vtep": object{"address": "172.30.0.1", "mac": "02:00:00:00:00:01"}},
	}
	i := 0
	for _, spec := range bad {
		o := object{"apiVersion": "poplin.dev/v1alpha1", "kind": "NodeNetwork", "metadata": object{"name": fmt.Sprintf("bad-%d", i)}}
		if spec != nil {
			o["spec"] = spec
		}
		s.Put(networks, o)
		i++
	}
	c := client(t, s, nil)
	<-c.Ready()
	if known(c) != "worker-2" {
		t.Errorf("know %s, want worker-2 alone", known(c))
	}
	skipped := c.Skipped()
	if len(skipped) != len(bad) {
		t.Errorf("skipped %v, want %d objects", skipped, len(bad))
	}
	for want := range bad {
		found := false
		for _, reason := range skipped {
			found = found || strings.Contains(reason, want)
		}
		if !found {
			t.Errorf("no reason contains %q: %v", want, skipped)
		}
	}
	// A MAC address that derives from another Node's UID is that node's.
	foreign := network(peer(5))
	foreign["metadata"].(object)["ownerReferences"] = []object{{"apiVersion": "v1", "kind": "Node", "name": "worker-5", "uid": "another"}}
	s.Put(networks, foreign)
	s.Until("another's MAC address is noticed", func() bool { return strings.Contains(c.Skipped()["worker-5"], "derives from the UID of the Node") })
	s.Delete(networks + "/worker-5")
	n := peer(3)
	n.Name = "bad-0"
	s.Put(networks, network(n))
	s.Until("a repaired object is used", func() bool { return known(c) == "bad-0 worker-2" && len(c.Skipped()) == len(bad)-1 })
}

func TestEndpointsFailOver(t *testing.T) {
	s := kubetest.New(t)
	s.Put(nodes, node("worker-1", []string{"10.244.1.0/24"}))
	host, port, _ := strings.Cut(s.Address(), ":")
	s.Put(slicesOf, object{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
		"metadata":    object{"name": "kubernetes"},
		"addressType": "IPv4",
		"endpoints":   []object{{"addresses": []string{host}}, {"addresses": []string{"127.0.0.9"}, "conditions": object{"ready": false}}},
		"ports":       []object{{"name": "https", "port": mustInt(port)}, {"name": "other", "port": 1}},
	})
	// The first refuses connections, the second is somebody else's server.
	other := kubetest.New(t)
	var mu sync.Mutex
	var saved []string
	c := client(t, s, func(cfg *kube.Config) {
		cfg.Endpoints = []string{"https://127.0.0.1:1", other.URL()}
		cfg.Saved = []string{s.Address()}
		cfg.Save = func(list []string) error { mu.Lock(); defer mu.Unlock(); saved = list; return nil }
	})
	<-c.Ready()
	if c.Server() != s.Address() {
		t.Errorf("uses %s, want %s", c.Server(), s.Address())
	}
	// What was given is not saved again; another address is.
	s.Put(slicesOf, object{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": object{"name": "kubernetes"},
		"endpoints": []object{{"addresses": []string{host, "127.0.0.1"}}, {"addresses": []string{"fd00::1"}}},
		"ports":     []object{{"name": "https", "port": mustInt(port)}},
	})
	want := []string{s.Address(), "127.0.0.1:" + port, "[fd00::1]:" + port}
	s.Until("endpoints are saved", func() bool { mu.Lock(); defer mu.Unlock(); return slices.Equal(saved, want) })
}

func mustInt(s string) (n int) {
	fmt.Sscan(s, &n)
	return n
}

func TestFailureIsReportedOnce(t *testing.T) {
	s := kubetest.New(t)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	ca, _ := os.ReadFile(filepath.Join(s.Credentials(), "ca.crt"))
	if err := os.WriteFile(filepath.Join(filepath.Dir(token), "ca.crt"), ca, 0o600); err != nil {
		t.Fatal(err)
	}
	var log buffer
	c := client(t, s, func(cfg *kube.Config) {
		cfg.Credentials = filepath.Dir(token)
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
	})
	s.Until("several attempts were made", func() bool { return len(s.Requests("GET /api/v1/nodes")) > 3 })
	if w := c.Waiting(); !strings.Contains(w, "reading Node worker-1 from the API server: ") {
		t.Errorf("waits for %q", w)
	}
	if n := strings.Count(log.String(), "resource=nodes "); n != 1 {
		t.Errorf("%d lines of log, want 1:\n%s", n, log.String())
	}
}

// attempts counts what failed, and events.
type attempts struct {
	mu     sync.Mutex
	n      int
	events map[string]int
}

func (a *attempts) Dialed(string, error) {}

func (a *attempts) Requested(_ string, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.n++
	}
}

func (a *attempts) Heard(resource string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.events == nil {
		a.events = map[string]int{}
	}
	a.events[resource]++
}

func (a *attempts) heard(resource string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.events[resource]
}

func (a *attempts) count() int { a.mu.Lock(); defer a.mu.Unlock(); return a.n }

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) { b.mu.Lock(); defer b.mu.Unlock(); return b.b.Write(p) }
func (b *buffer) String() string              { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

func TestNewRefuses(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	dir := t.TempDir()
	tests := []struct {
		cfg  kube.Config
		want string
	}{
		{kube.Config{Credentials: dir}, "set apiServer.endpoints"},
		{kube.Config{Endpoints: []string{"https://127.0.0.1"}, Credentials: dir}, "service account's token"},
		{kube.Config{Kubeconfig: filepath.Join(dir, "absent")}, "read kubeconfig"},
	}
	for _, tt := range tests {
		_, err := kube.New(tt.cfg)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.cfg, err, tt.want)
		}
	}
}
