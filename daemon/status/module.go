// Package status answers questions about the daemon. Inputs are functions
// that say what is true now; outputs are /healthz and /readyz for the
// kubelet, /metrics for Prometheus, and on a socket that only root may use the
// report for poplinctl, and Go's profiles for who asks for one. It refuses to change anything, and a listener that
// cannot be had is reported and retried: it must not cost a node its network.
package status

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"path/filepath"
	"sync"
	"time"

	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/loop"
)

const (
	relisten = time.Second
	// requestTimeout bounds a client that says nothing, or reads nothing.
	requestTimeout = 10 * time.Second
)

// Deps is all the module uses.
type Deps struct {
	// Health and Metrics are addresses; an empty one is not served.
	Health, Metrics string
	// Socket is the path for poplinctl; an empty one is not served.
	Socket string
	// Exported is what Metrics serves.
	Exported http.Handler
	// Access, if not nil, guards Metrics, which then is encrypted: with the
	// certificate of the two files, or one that this module makes for Node.
	Access                  Access
	CertFile, KeyFile, Node string
	// Isolation, if not nil, answers the CNI plugin on the socket.
	Isolation http.Handler
	// Alive is nil unless the daemon hangs.
	Alive func() error
	// Report says what is true now.
	Report func() Report
	// Cluster says what is known of the API's objects, Config is the text of the
	// configuration file, which the node has in the daemon's pod only.
	Cluster func() facts.Cluster
	Config  func() ([]byte, error)
	Log     *slog.Logger
}

// Module is the three servers; it implements loop.Task.
type Module struct {
	deps  Deps
	ready *loop.Ready

	mu sync.Mutex
	// failed holds, by listener, why it is not served.
	failed map[string]error
}

// New makes the module; Run starts it.
func New(deps Deps) *Module {
	return &Module{deps: deps, ready: loop.NewReady(), failed: map[string]error{}}
}

// listener is one of the places where questions are answered.
type listener struct {
	network, address string
	handler          http.Handler
	tls              *tls.Config
}

func (m *Module) listeners() []listener {
	health := http.NewServeMux()
	health.HandleFunc("GET /healthz", m.healthz)
	health.HandleFunc("GET /readyz", m.readyz)
	metrics := http.NewServeMux()
	var encrypt *tls.Config
	exported := m.deps.Exported
	if m.deps.Access != nil {
		exported = m.guard(exported)
		encrypt = (&certificate{node: m.deps.Node, certFile: m.deps.CertFile, keyFile: m.deps.KeyFile}).config()
	}
	metrics.Handle("GET /metrics", exported)
	socket := http.NewServeMux()
	socket.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { m.say(w, m.deps.Report()) })
	socket.HandleFunc("GET /cluster", func(w http.ResponseWriter, _ *http.Request) { m.say(w, m.deps.Cluster()) })
	socket.HandleFunc("GET /config", m.config)
	socket.HandleFunc("GET /debug/pprof/", pprof.Index)
	socket.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	socket.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	if m.deps.Isolation != nil {
		socket.Handle("POST /isolation", m.deps.Isolation)
	}
	var list []listener
	for _, l := range []listener{
		{"tcp", m.deps.Health, health, nil},
		{"tcp", m.deps.Metrics, metrics, encrypt},
		{"unix", m.deps.Socket, socket, nil},
	} {
		if l.address != "" {
			list = append(list, l)
		}
	}
	return list
}

// Run implements loop.Task.
func (m *Module) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, l := range m.listeners() {
		wg.Go(func() { m.keep(ctx, l) })
	}
	m.ready.Set()
	wg.Wait()
	return nil
}

// Ready implements loop.Task.
func (m *Module) Ready() <-chan struct{} { return m.ready.Done() }

// String implements loop.Task.
func (m *Module) String() string { return "status" }

// Waiting says which listener cannot be had.
func (m *Module) Waiting() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, err := range m.failed {
		if err != nil {
			return err.Error()
		}
	}
	return ""
}

// keep serves l until ctx ends.
func (m *Module) keep(ctx context.Context, l listener) {
	for {
		err := m.serve(ctx, l)
		if ctx.Err() != nil {
			return
		}
		m.note(l, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(relisten):
		}
	}
}

func (m *Module) serve(ctx context.Context, l listener) error {
	ln, err := listen(l)
	if err != nil {
		return err
	}
	m.note(l, nil)
	if l.tls != nil {
		ln = tls.NewListener(ln, l.tls)
	}
	srv := &http.Server{
		Handler:           l.handler,
		ReadHeaderTimeout: requestTimeout,
		WriteTimeout:      requestTimeout,
		ErrorLog:          slog.NewLogLogger(m.deps.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	return srv.Serve(ln)
}

func listen(l listener) (net.Listener, error) {
	if l.network != "unix" {
		return net.Listen(l.network, l.address)
	}
	if err := os.MkdirAll(filepath.Dir(l.address), 0o700); err != nil {
		return nil, err
	}
	// Bound beside its place, closed to others, then moved: a client finds
	// the socket of a process that was killed, or this one, never one that
	// is open to everybody.
	tmp := l.address + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ln, err := net.Listen(l.network, tmp)
	if err != nil {
		return nil, err
	}
	// A successor's socket must outlive this process.
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, l.address)); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

func (m *Module) note(l listener, err error) {
	if err != nil {
		err = fmt.Errorf("listen on %s: %w", l.address, err)
	}
	m.mu.Lock()
	before := m.failed[l.address]
	m.failed[l.address] = err
	m.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		m.deps.Log.Error("cannot answer questions; the network is not affected", "error", err)
	case err == nil:
		m.deps.Log.Info("listening", "address", l.address)
	}
}

func (m *Module) healthz(w http.ResponseWriter, _ *http.Request) {
	if err := m.deps.Alive(); err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

func (m *Module) readyz(w http.ResponseWriter, _ *http.Request) {
	r := m.deps.Report()
	if !r.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	for _, t := range r.Tasks {
		fmt.Fprintf(w, "%s: %s\n", t.Name, t.text())
	}
}

func (m *Module) say(w http.ResponseWriter, what any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(what); err != nil {
		m.deps.Log.Debug("cannot answer", "error", err)
	}
}

func (m *Module) config(w http.ResponseWriter, _ *http.Request) {
	text, err := m.deps.Config()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	m.say(w, string(text))
}
