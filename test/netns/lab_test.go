// Package netns tests the data plane with packets: nodes are network
// namespaces joined by a bridge in one more, each runs the daemon's own
// overlay module, and pods are namespaces behind a veth. Inputs are the
// modules, outputs the tests' verdicts.
package netns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/daemon/overlay"
	"poplin.dev/poplin/pkg/apply/nft"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/space"
)

// lab is a cluster: a bridge, nodes on it, and what an API server would know.
type lab struct {
	wire  *space.Space
	api   *api
	nodes []*node
	plan  plan
}

// plan says which families a lab has.
type plan struct {
	pods     []string // "4" and "6", in the order of the Node's podCIDRs
	underlay []string // the same for the InternalIPs
}

var (
	ipv4 = plan{pods: []string{"4"}, underlay: []string{"4"}}
	ipv6 = plan{pods: []string{"6"}, underlay: []string{"6"}}
	dual = plan{pods: []string{"4", "6"}, underlay: []string{"4", "6"}}
)

// node is a namespace in which the module can run.
type node struct {
	*space.Space
	lab    *lab
	self   cluster.Self
	pods   []*pod
	conf   overlay.Config
	plain  bool // the nftables table has no owner, as on kernels before 6.9
	table  *nft.Table
	states atomic.Pointer[overlay.State] // what the running module reported last
	passes atomic.Int32                  // counts its reports
	stop   func()                        // ends the module and waits for it
}

func newLab(t testing.TB, p plan, nodes int) *lab {
	t.Helper()
	need.Link(t, "vxlan")
	need.Link(t, "bridge")
	l := &lab{wire: space.New(t), api: &api{nodes: map[string]cluster.Node{}}, plan: p}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "br0"
	if err := l.wire.NL.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		t.Fatalf("add bridge: %v", err)
	}
	l.wire.Up(t, "br0")
	for range nodes {
		l.addNode(t)
	}
	return l
}

// addNode makes node number i: addresses 192.0.2.i and 2001:db8::i, pods in
// 10.244.i.0/24 and fd00:10:244:i::/64.
func (l *lab) addNode(t testing.TB) *node {
	t.Helper()
	i := len(l.nodes) + 1
	n := &node{Space: space.New(t), lab: l, stop: func() {}}
	n.self = cluster.Self{Name: fmt.Sprintf("worker-%d", i), UID: fmt.Sprintf("uid-%d", i)}
	l.plug(t, n.Space, fmt.Sprintf("port%d", i))
	for _, f := range l.plan.underlay {
		a := underlayAddr(f, i)
		n.AddAddr(t, "eth0", a)
		n.self.Addresses = append(n.self.Addresses, a.Addr())
	}
	for _, f := range l.plan.pods {
		n.self.PodCIDRs = append(n.self.PodCIDRs, podCIDR(f, i))
	}
	n.conf = overlay.Config{VNI: 1, Port: 8472, Masquerade: true, Checksums: "auto", Resync: time.Minute}
	l.nodes = append(l.nodes, n)
	l.api.setSelf(n.self)
	return n
}

// plug joins a namespace to the bridge by a device eth0.
func (l *lab) plug(t testing.TB, s *space.Space, port string) {
	t.Helper()
	space.Veth(t, l.wire, port, 0, s, "eth0")
	if err := l.wire.NL.LinkSetMaster(l.wire.Link(t, port), l.wire.Link(t, "br0")); err != nil {
		t.Fatalf("plug %s into the bridge: %v", port, err)
	}
}

func underlayAddr(family string, i int) netip.Prefix {
	if family == "4" {
		return netip.MustParsePrefix(fmt.Sprintf("192.0.2.%d/24", i))
	}
	return netip.MustParsePrefix(fmt.Sprintf("2001:db8::%d/64", i))
}

func podCIDR(family string, i int) netip.Prefix {
	if family == "4" {
		return netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i))
	}
	return netip.MustParsePrefix(fmt.Sprintf("fd00:10:244:%d::/64", i))
}

// start runs the module inside the namespace, as poplind would.
func (n *node) start(t testing.TB) *overlay.Module {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	log := logger(t, n)
	table := n.openTable(t, log)
	m := overlay.New(overlay.Deps{
		Config: n.conf, Source: view{n.lab.api, n.self.Name}, Publisher: n.lab.api, Table: table,
		Log: log, Report: n.report,
	})
	n.table = table
	n.states.Store(&overlay.State{Err: errors.New("nothing reported yet")})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer table.Close()
		if err := n.Do(func() error { return m.Run(ctx) }); err != nil {
			t.Errorf("module of %s: %v", n.self.Name, err)
		}
	}()
	var once sync.Once
	n.stop = func() { once.Do(func() { cancel(); <-ended }) }
	t.Cleanup(n.stop)
	return m
}

// openTable opens the node's nftables table, as poplind does for its modules.
func (n *node) openTable(t testing.TB, log *slog.Logger) (table *nft.Table) {
	t.Helper()
	if err := n.Do(func() (err error) {
		table, err = nft.Open(nft.Config{Plain: n.plain, Log: log})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return table
}

func (n *node) report(s overlay.State) {
	n.states.Store(&s)
	n.passes.Add(1)
}

func (n *node) state() overlay.State { return *n.states.Load() }

// ready waits for the module's first complete pass.
func ready(t testing.TB, m *overlay.Module) {
	t.Helper()
	select {
	case <-m.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("module not ready within 10 s")
	}
}

// startAll runs every node's module, and waits until every node has a route
// to every other one.
func (l *lab) startAll(t testing.TB) {
	t.Helper()
	for _, n := range l.nodes {
		ready(t, n.start(t))
	}
	l.converged(t)
}

func (l *lab) converged(t testing.TB) {
	t.Helper()
	for _, n := range l.nodes {
		for _, other := range l.nodes {
			if n == other {
				continue
			}
			for _, c := range other.self.PodCIDRs {
				await.Success(t, 5*time.Second, func() error { return n.hasRoute(c) })
			}
		}
	}
}

func (n *node) hasRoute(dst netip.Prefix) error {
	routes, err := n.NL.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Dst: space.IPNet(dst)}, netlink.RT_FILTER_DST)
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return err
	}
	if !slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Type == unix.RTN_UNICAST }) {
		return fmt.Errorf("%s has no route to %s", n.self.Name, dst)
	}
	return nil
}

func logger(t testing.TB, n *node) *slog.Logger {
	return slog.New(slog.NewTextHandler(logWriter{t, n.self.Name}, nil))
}

// logWriter sends the modules' log to the test that runs them.
type logWriter struct {
	t    testing.TB
	name string
}

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s: %s", w.name, b[:len(b)-1])
	return len(b), nil
}

// api is the API server as far as the modules see it.
type api struct {
	mu      sync.Mutex
	selves  map[string]cluster.Self
	nodes   map[string]cluster.Node
	hidden  bool // the first list is not complete yet
	fail    error
	changed []func()
	clock   time.Time
}

// view is the Source of one node.
type view struct {
	*api
	name string
}

func (v view) Self() (cluster.Self, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, ok := v.selves[v.name]
	return s, ok
}

func (v view) Nodes() ([]cluster.Node, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []cluster.Node
	for _, n := range v.nodes {
		list = append(list, n)
	}
	return list, !v.hidden
}

func (v view) Subscribe(changed func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.changed = append(v.changed, changed)
}

// Publish creates or updates; the first creation dates the object.
func (a *api) Publish(_ context.Context, n cluster.Node) error {
	a.mu.Lock()
	err := a.fail
	if err == nil {
		if old, ok := a.nodes[n.Name]; ok {
			n.Created = old.Created
		} else {
			a.clock = a.clock.Add(time.Second)
			n.Created = a.clock
		}
		a.nodes[n.Name] = n
	}
	a.mu.Unlock()
	a.notify()
	return err
}

func (a *api) setSelf(s cluster.Self) {
	a.change(func() {
		if a.selves == nil {
			a.selves = map[string]cluster.Self{}
		}
		a.selves[s.Name] = s
	})
}

func (a *api) change(f func()) {
	a.mu.Lock()
	f()
	a.mu.Unlock()
	a.notify()
}

func (a *api) notify() {
	a.mu.Lock()
	list := slices.Clone(a.changed)
	a.mu.Unlock()
	for _, f := range list {
		f()
	}
}
