// Package health answers load balancers: on a health-check port of its own
// for each Service that has one, and for the whole node at /healthz, in the
// words of kube-proxy, which many balancers' controllers expect. Inputs are
// the ports and what is true now; outputs are HTTP answers. It refuses to
// fail: a port that somebody else has is reported, and tried again.
package health

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/pkg/services"
)

const (
	// again is when a port that cannot be had is tried again.
	again = time.Second
	// requestTimeout bounds a client that says nothing, or reads nothing.
	requestTimeout = 10 * time.Second
)

// Node is what is true of this node.
type Node struct {
	// Healthy says that Services are as the API server has them.
	Healthy bool
	// Updated is when they last were.
	Updated time.Time
	// Eligible is false for a node that load balancers should leave.
	Eligible bool
	// Addresses are where health-check ports listen.
	Addresses []netip.Addr
	// Families has an address of each IP family that is served.
	Families []netip.Addr
}

// Deps is all the module uses.
type Deps struct {
	// Healthz is the address of the node's /healthz; an empty one is not
	// served.
	Healthz string
	Node    func() Node
	// Alone is called when Healthz is had: no kube-proxy has it any more.
	Alone func()
	// Failed is told of each health-check port that cannot be had; once.
	Failed func(key service.Key, message string)
	Log    *slog.Logger
}

// Module is the servers; it implements loop.Task.
type Module struct {
	deps  Deps
	ready *loop.Ready
	wake  chan struct{}

	mu     sync.Mutex
	wanted map[service.Key]services.Health

	// The following belong to Run.
	open    map[place]*http.Server
	failed  map[place]string
	serving sync.WaitGroup
}

// place is where a Service's port is answered. The node's own has no Service.
type place struct {
	service.Key
	address string
}

// New makes the module; Run starts it.
func New(deps Deps) *Module {
	return &Module{
		deps: deps, ready: loop.NewReady(), wake: make(chan struct{}, 1),
		wanted: map[service.Key]services.Health{}, open: map[place]*http.Server{}, failed: map[place]string{},
	}
}

// Ready implements loop.Task.
func (m *Module) Ready() <-chan struct{} { return m.ready.Done() }

// String implements loop.Task.
func (m *Module) String() string { return "health checks" }

// Set says what a Service's port answers from now on; nil: there is none.
func (m *Module) Set(key service.Key, h *services.Health) {
	m.mu.Lock()
	if h == nil {
		delete(m.wanted, key)
	} else {
		m.wanted[key] = *h
	}
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Run implements loop.Task.
func (m *Module) Run(ctx context.Context) error {
	m.ready.Set()
	if m.deps.Healthz == "" {
		m.deps.Alone() // nobody can tell
	}
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		m.reconcile()
		select {
		case <-ctx.Done():
			for _, s := range m.open {
				_ = s.Close()
			}
			m.serving.Wait()
			return nil
		case <-m.wake:
		case <-tick.C:
		}
	}
}

// places are what should be listened at.
func (m *Module) places() map[place]http.Handler {
	all := map[place]http.Handler{}
	if a := m.deps.Healthz; a != "" {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { m.node(w, true) })
		mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { m.node(w, false) })
		all[place{address: a}] = mux
	}
	addresses := m.deps.Node().Addresses
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, h := range m.wanted {
		for _, a := range addresses {
			all[place{key, netip.AddrPortFrom(a, h.Port).String()}] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { m.service(w, key) })
		}
	}
	return all
}

// reconcile opens and closes listeners.
func (m *Module) reconcile() {
	want := m.places()
	for at, s := range m.open {
		if want[at] == nil {
			_ = s.Close()
			delete(m.open, at)
		}
	}
	for at := range m.failed {
		if want[at] == nil {
			delete(m.failed, at)
		}
	}
	for at, handler := range want {
		if m.open[at] != nil {
			continue
		}
		ln, err := net.Listen("tcp", at.address)
		if err != nil {
			m.fail(at, err)
			continue
		}
		delete(m.failed, at)
		s := &http.Server{
			Handler: handler, ReadHeaderTimeout: requestTimeout, WriteTimeout: requestTimeout,
			ErrorLog: slog.NewLogLogger(m.deps.Log.Handler(), slog.LevelDebug),
		}
		m.open[at] = s
		if at.Key == (service.Key{}) {
			m.deps.Alone()
		}
		m.serving.Go(func() {
			if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
				m.deps.Log.Error("health-check server ended", "address", at.address, "error", err)
			}
		})
	}
}

// fail reports once, until the reason changes.
func (m *Module) fail(at place, err error) {
	if m.failed[at] == err.Error() {
		return
	}
	m.failed[at] = err.Error()
	if at.Key == (service.Key{}) {
		m.deps.Log.Error("cannot answer load balancers about this node; is a kube-proxy still running?", "error", err)
		return
	}
	m.deps.Failed(at.Key, fmt.Sprintf("cannot answer at health-check port %s: %v", at.address, err))
}

// service is what a Service's health-check port answers. Endpoints that drain
// do not count, so that the load balancer turns to others in time.
func (m *Module) service(w http.ResponseWriter, key service.Key) {
	m.mu.Lock()
	n := m.wanted[key].Endpoints
	m.mu.Unlock()
	healthy := m.deps.Node().Healthy
	type name struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	}
	w.Header().Set("X-Load-Balancing-Endpoint-Weight", strconv.Itoa(n))
	answer(w, n > 0 && healthy, struct {
		Service name `json:"service"`
		Local   int  `json:"localEndpoints"`
		Healthy bool `json:"serviceProxyHealthy"`
	}{name(key), n, healthy})
}

// family is the state of one IP family; both are always the same.
type family struct {
	Updated time.Time `json:"lastUpdated"`
	Healthy bool      `json:"healthy"`
}

// node is what the node answers. A node that is about to go is alive, but no
// place for new connections.
func (m *Module) node(w http.ResponseWriter, eligibility bool) {
	n := m.deps.Node()
	body := struct {
		Updated  time.Time         `json:"lastUpdated"`
		Now      time.Time         `json:"currentTime"`
		Eligible *bool             `json:"nodeEligible,omitempty"`
		Healthy  bool              `json:"healthy"`
		Status   map[string]family `json:"status"`
	}{Updated: n.Updated, Now: time.Now(), Healthy: n.Healthy, Status: map[string]family{}}
	for name, is := range map[string]func(netip.Addr) bool{"IPv4": netip.Addr.Is4, "IPv6": netip.Addr.Is6} {
		if slices.ContainsFunc(n.Families, is) {
			body.Status[name] = family{n.Updated, n.Healthy}
		}
	}
	if eligibility {
		body.Eligible = &n.Eligible
	}
	answer(w, n.Healthy && (n.Eligible || !eligibility), body)
}

func answer(w http.ResponseWriter, ok bool, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(body) // the client has gone
}
