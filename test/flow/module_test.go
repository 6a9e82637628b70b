package flow

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"

	"strings"
	"sync"
	"testing"
	"time"

	daemon "poplin.dev/poplin/daemon/services"
	applyvip "poplin.dev/poplin/pkg/apply/vip"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/services"
	"poplin.dev/poplin/test/await"
)

// world is what the module reads, and what it says.
type world struct {
	mu       sync.Mutex
	complete bool
	ranges   []netip.Prefix
	objects  map[service.Key]object
	changed  func(string, []service.Key)
	states   []daemon.State
	written  int // elements of all states
	events   []string
	health   map[service.Key]services.Health
}

func (w *world) Complete() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.complete
}

func (w *world) Services() (list []service.Service) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, o := range w.objects {
		list = append(list, o.Service)
	}
	return list
}

func (w *world) Ranges() []netip.Prefix {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ranges
}

func (w *world) Service(k service.Key) (service.Service, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	o, found := w.objects[k]
	return o.Service, found
}

func (w *world) Slices(k service.Key) []service.Slice {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.objects[k].slices
}

func (w *world) Triggered(service.Key) time.Time { return time.Time{} }
func (w *world) Self() (cluster.Self, bool) {
	return cluster.Self{Name: "worker-1", Zone: "east", Addresses: both("node")}, true
}
func (w *world) Nodes() ([]cluster.Node, bool) { return nil, true }
func (w *world) Set(k service.Key, h *services.Health) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if delete(w.health, k); h != nil {
		w.health[k] = *h
	}
}

func (w *world) Reference(k service.Key, slice bool) cluster.Reference {
	return cluster.Reference{Kind: map[bool]string{false: "Service", true: "EndpointSlice"}[slice], Namespace: k.Namespace, Name: k.Name}
}

// source and nodes are the two sides of the world, which both can be
// subscribed to.
type source struct{ *world }

func (s source) Subscribe(changed func(string, []service.Key)) { s.changed = changed }

type nodes struct{ *world }

func (nodes) Subscribe(func()) {}

// put has the module hear of a Service; without endpoints, of its end.
func (w *world) put(o object, endpoints ...string) {
	w.mu.Lock()
	if len(endpoints) == 0 {
		delete(w.objects, o.Key)
	} else {
		w.objects[o.Key] = o
	}
	w.mu.Unlock()
	w.changed("services", []service.Key{o.Key})
}

// last is the latest state, and how many there were.
func (w *world) last() (daemon.State, int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.states) == 0 {
		return daemon.State{}, 0
	}
	return w.states[len(w.states)-1], len(w.states)
}

// run starts the module on the lab's node, and returns how to stop it.
func (w *world) run(t testing.TB, l *lab, plain bool, verify time.Duration) (m *daemon.Module, stop func()) {
	t.Helper()
	m = daemon.New(daemon.Deps{
		Config: daemon.Config{OverlayPort: 8472, ExternalIPs: labNode().ExternalRanges, Plain: plain, Verify: verify},
		Source: source{w}, Cluster: nodes{w}, Health: w, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Event: func(about cluster.Reference, why reason.Reason, message string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.events = append(w.events, fmt.Sprintf("%s: %s: %s", about, why, message))
		},
		Changed: func(string, int) {},
		Report: func(s daemon.State) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.states, w.written = append(w.states, s), w.written+s.Written
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.node.Do(func() error { return m.Run(ctx) }) }()
	return m, sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (w *world) until(t *testing.T, what string, true func() bool) {
	t.Helper()
	await.Success(t, 20*time.Second, func() error {
		if !true() {
			last, _ := w.last()
			return fmt.Errorf("%s: %+v", what, last)
		}
		return nil
	})
}

// TestModule is the daemon's part: nothing before a complete view, changes,
// what users are told, repair, a restart that changes nothing, and the end.
func TestModule(t *testing.T) {
	l := newLab(t)
	if err := l.kernel.Remove(); err != nil {
		t.Fatal(err)
	}
	l.kernel.Close()
	l.patience = 5 * time.Second
	w := &world{objects: map[service.Key]object{}, health: map[service.Key]services.Health{}}
	m, stop := w.run(t, l, true, time.Hour)
	defer stop()
	w.until(t, "it waits", func() bool { s, n := w.last(); return n > 0 && strings.Contains(s.Waiting, "complete view") })

	web := serviceOf(func(o *object) {
		balanced(o)
		o.ExternalLocal, o.HealthCheckNodePort = true, 32000
		o.ExternalIPs = []netip.Addr{netip.MustParseAddr("8.8.8.8")}
		bad := service.Endpoint{Addr: at("pod1", true), Ready: true, Serving: true}
		o.slices[0].Endpoints = append(o.slices[0].Endpoints, bad)
	}, "pod1", "remote")
	// A program of the node has the node port.
	if err := l.node.Do(func() error {
		ln, err := net.Listen("tcp", ":30080")
		if err == nil {
			t.Cleanup(func() { ln.Close() })
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	w.objects[web.Key] = web
	w.mu.Lock()
	w.complete = true
	w.mu.Unlock()
	w.changed("services", nil)
	<-m.Ready()
	l.serves(t, "pod1:8080 sees pod2, remote:8080 sees pod2")
	w.mu.Lock()
	if got := w.health[web.Key]; got != (services.Health{Port: 32000, Endpoints: 1}) {
		t.Errorf("health-check port: %+v", got)
	}
	told := strings.Join(w.events, "\n")
	w.mu.Unlock()
	for _, want := range []string{"Service shop/web: ExternalAddressRefused: ", "EndpointSlice shop/web-false: BadEndpoint: ", "Service shop/web: NodePortInUse: "} {
		if !strings.Contains(told, want) {
			t.Errorf("no event %q in\n%s", want, told)
		}
	}
	if _, updated := m.Healthy(); updated.IsZero() {
		t.Error("it does not say that all is well")
	}

	_, before := w.last()
	w.put(serviceOf(nil, "remote"), "remote")
	w.until(t, "the change is in the kernel", func() bool { _, n := w.last(); return n > before })
	l.serves(t, "remote:8080 sees pod2")
	w.mu.Lock()
	if len(w.health) != 0 {
		t.Errorf("a Service without a health-check port has one: %v", w.health)
	}
	w.mu.Unlock()

	// What a ServiceCIDR holds and no Service has is dropped, as soon as there
	// is that ServiceCIDR.
	l.patience = patience
	if got := l.ask(t, "pod2", "elsewhere", service.TCP, 80, false); got != "elsewhere:80 sees pod2" {
		t.Errorf("outside of all ranges: %s", got)
	}
	w.mu.Lock()
	w.ranges = []netip.Prefix{netip.PrefixFrom(at("elsewhere", false), 24).Masked()}
	w.mu.Unlock()
	start := time.Now()
	w.changed("servicecidrs", nil)
	w.until(t, "the range is closed", func() bool { return l.ask(t, "pod2", "elsewhere", service.TCP, 80, false) == "silence" })
	t.Logf("a ServiceCIDR took effect after %s at most", time.Since(start).Round(time.Millisecond))
	l.patience = 5 * time.Second

	// Somebody flushes the ruleset; a table without an owner cannot help it.
	_, before = w.last()
	l.flush(t)
	w.until(t, "the table is back", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return slices.ContainsFunc(w.states[before:], func(s daemon.State) bool { return s.Written > 0 && s.Err == nil })
	})
	l.serves(t, "remote:8080 sees pod2")
	stop()

	// The next daemon's table finds everything as it left it.
	w.states = nil
	_, stop = w.run(t, l, true, time.Hour)
	w.until(t, "it has a look", func() bool { _, n := w.last(); return n > 0 })
	w.mu.Lock()
	if s := w.states[0]; !s.Full || s.Written != 0 || s.Services != 1 || s.Elements == 0 {
		t.Errorf("after a restart: %+v", s)
	}
	w.mu.Unlock()
	stop()
	if err := l.node.Do(func() error { return daemon.Remove(daemon.Config{Plain: true}, slog.New(slog.DiscardHandler)) }); err != nil {
		t.Fatal(err)
	}
	l.patience = patience
	if got := l.ask(t, "pod2", "vip", service.TCP, 80, false); got == "remote:8080 sees pod2" {
		t.Error("removed, and still there")
	}
}

// TestModuleEndsFlows: a UDP client that never pauses is with a living
// endpoint, or refused, a second after its own has ended.
func TestModuleEndsFlows(t *testing.T) {
	l := newLab(t)
	l.kernel.Close()
	w := &world{complete: true, objects: map[service.Key]object{}, health: map[service.Key]services.Health{}}
	udp := func(endpoints ...string) object { return serviceOf(overUDP, endpoints...) }
	w.objects[key] = udp("pod1")
	m, stop := w.run(t, l, false, time.Hour)
	defer stop()
	<-m.Ready()
	for _, ipv6 := range []bool{false, true} {
		for _, to := range []netip.AddrPort{netip.AddrPortFrom(at("vip", ipv6), 80), netip.AddrPortFrom(at("node", ipv6), 30080)} {
			w.put(udp("pod1"), "pod1")
			w.until(t, "pod1 answers", func() bool {
				return strings.HasPrefix(l.ask(t, "client", placeOf(to.Addr()), service.UDP, to.Port(), ipv6), "pod1")
			})
			var c *net.UDPConn
			if err := l.homes["client"].Do(func() (err error) {
				c, err = net.DialUDP("udp", &net.UDPAddr{IP: at("client", ipv6).AsSlice()}, net.UDPAddrFromAddrPort(to))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, step := range []struct {
				endpoints []string
				want      string
			}{{[]string{"pod1"}, "pod1"}, {[]string{"remote"}, "remote"}, {nil, ""}, {[]string{"pod1"}, "pod1"}} {
				w.put(udp(step.endpoints...), step.endpoints...)
				start := time.Now()
				answered := func() bool { return strings.HasPrefix(exchange(c), step.want) }
				if step.want == "" { // refused, or silence
					answered = func() bool { return !strings.Contains(exchange(c), " sees ") }
				}
				for !answered() {
					if time.Since(start) > 10*time.Second {
						t.Fatalf("%s, endpoints %v: still the wrong answer", to, step.endpoints)
					}
				}
				t.Logf("%s: endpoints %v after %s", to, step.endpoints, time.Since(start).Round(time.Millisecond))
			}
		}
	}
}

// TestModuleVerifies: what nobody told of is found, and what is as it should be
// is not written again.
func TestModuleVerifies(t *testing.T) {
	l := newLab(t)
	l.kernel.Close()
	web := serviceOf(nil, "pod1")
	w := &world{complete: true, objects: map[service.Key]object{web.Key: web}, health: map[service.Key]services.Health{}}
	m, stop := w.run(t, l, false, 200*time.Millisecond)
	defer stop()
	<-m.Ready()
	full := func() (n int) {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, s := range w.states {
			if s.Full {
				n++
			}
		}
		return n
	}
	_, before := w.last()
	w.until(t, "five rounds", func() bool { _, n := w.last(); return n >= before+5 })
	if n := full(); n != 1 {
		t.Errorf("everything was compiled and written %d times, and only the start had to", n)
	}
	w.mu.Lock()
	w.objects[web.Key] = serviceOf(nil, "remote")
	w.mu.Unlock()
	w.until(t, "the unsaid change is in the kernel", func() bool { return full() == 2 })
	l.serves(t, "remote:8080 sees pod2")
}

// serves asks the Service from a pod, in both families.
func (l *lab) serves(t *testing.T, want string) {
	t.Helper()
	for _, ipv6 := range []bool{false, true} {
		if got := l.survey(t, "pod2", "vip", service.TCP, 80, ipv6); got != want {
			t.Errorf("IPv6 %v: %s, want %s", ipv6, got, want)
		}
	}
}

// flush removes the whole table by another socket, as `nft flush ruleset`.
func (l *lab) flush(t *testing.T) {
	t.Helper()
	if err := l.node.Do(func() error {
		other, err := applyvip.Open(applyvip.Config{Plain: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer other.Close()
		return other.Remove()
	}); err != nil {
		t.Fatal(err)
	}
}

// TestModuleBadInput: objects that no API server should let pass, and one that
// is larger than anything, cost nobody else his Service, and are named.
func TestModuleBadInput(t *testing.T) {
	l := newLab(t)
	l.kernel.Close()
	l.patience = 10 * time.Second
	w := &world{complete: true, objects: map[service.Key]object{}, health: map[service.Key]services.Health{}}
	web := serviceOf(nil, "pod1")
	named := func(name string, change func(*object)) object {
		o := serviceOf(func(o *object) {
			o.Name, o.Ports[0].NodePort, o.Created = name, 0, time.Now()
			o.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 7, byte(len(w.objects))})}
			for i := range o.slices {
				o.slices[i].Name, o.slices[i].Service = fmt.Sprint(name, "-", i), name
			}
		}, "remote")
		change(&o)
		return o
	}
	w.objects[web.Key] = web
	for _, o := range []object{
		// A stale cache has two Services with one node port, or one address.
		named("thief", func(o *object) { o.Ports[0].NodePort, o.ClusterIPs = 30080, both("vip") }),
		named("families", func(o *object) {
			o.ClusterIPs = append(o.ClusterIPs, netip.AddrFrom16(netip.MustParseAddr("10.96.7.99").As16()), netip.Addr{})
			o.slices[0].Endpoints[0].Addr = at("remote", true)
		}),
		named("ports", func(o *object) {
			o.Ports = append(o.Ports, service.Port{Name: "zero", Protocol: service.TCP}, service.Port{Name: "odd", Protocol: 99, Port: 80})
			o.slices[0].Ports = append(o.slices[0].Ports, service.SlicePort{Name: "zero", Protocol: service.TCP})
		}),
		named("huge", func(o *object) {
			o.slices = nil
			for i := range 1000 {
				s := service.Slice{Key: service.Key{Namespace: o.Namespace, Name: fmt.Sprint("huge-", i)}, Service: "huge", Family: 4,
					Ports: []service.SlicePort{{Name: "http", Protocol: service.TCP, Port: 8080}}}
				for j := range 100 {
					n := i*100 + j
					s.Endpoints = append(s.Endpoints, service.Endpoint{Addr: netip.AddrFrom4([4]byte{10, byte(100 + n>>16), byte(n >> 8), byte(n)}), Ready: true, Serving: true})
				}
				o.slices = append(o.slices, s)
			}
		}),
	} {
		w.objects[o.Key] = o
	}
	m, stop := w.run(t, l, false, time.Hour)
	defer stop()
	<-m.Ready()
	w.until(t, "the first pass", func() bool { _, n := w.last(); return n > 0 })
	s, _ := w.last()
	t.Logf("%d elements in %s", s.Elements, s.Took.Round(time.Millisecond))
	for _, ipv6 := range []bool{false, true} {
		for _, way := range []flow{{"pod2", "vip", 80, "pod1:8080 sees pod2"}, {"client", "node", 30080, "pod1:8080 sees node"}} {
			if got := l.survey(t, way.from, way.to, service.TCP, way.port, ipv6); got != way.want {
				t.Errorf("IPv6 %v: %s to %s: %s", ipv6, way.from, way.to, got)
			}
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	told := strings.Join(w.events, "\n")
	for _, want := range []string{
		"Service shop/thief: AddressInUse: ", "is taken by the older Service shop/web",
		"Service shop/families: BadAddress: ", "EndpointSlice shop/families-0: BadEndpoint: ",
		"Service shop/ports: BadPort: ", "EndpointSlice shop/ports-0: BadEndpoint: ",
		"Service shop/huge: TooManyEndpoints: ",
	} {
		if !strings.Contains(told, want) {
			t.Errorf("no event %q in\n%s", want, told)
		}
	}
}
