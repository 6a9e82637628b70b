// Package proxy serves HTTP as a program says. Inputs are web.Programs, each
// replacing the one before in a single step while requests go on under the
// one they began with, and listening sockets; outputs are answers, and a
// record of each for metrics and logs. It speaks HTTP/1.1, HTTP/2 and
// WebSocket, streams every body, and refuses what two servers could read
// differently.
package proxy

import (
	"context"
	"log/slog"
	"net/http/httputil"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/upstream"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program/web"
)

// Config is what holds for all routes. Zero values are filled in by New.
type Config struct {
	// Trusted are the load balancers and proxies in front whose
	// X-Forwarded-* headers, and PROXY headers, are believed.
	Trusted       []netip.Prefix
	ProxyProtocol bool
	// MaxConnections may be open on each listener.
	MaxConnections int
	// HeaderBytes bounds a request's header section.
	HeaderBytes int
	// HeaderTime bounds a request's header, BodyTime a silence in its body,
	// IdleTime the wait for the next request, WriteTime how long a client
	// takes nothing.
	HeaderTime, BodyTime, IdleTime, WriteTime time.Duration
	// ReadTime is how long an endpoint may be silent where a route does not
	// say: not for gRPC, server-sent events and upgraded connections.
	ReadTime time.Duration
	// HTTPSPort is where redirects to HTTPS lead.
	HTTPSPort int
	// NoEncodedSlash refuses paths with an escaped slash or backslash.
	NoEncodedSlash bool
	// Withdraw is how long new connections are still taken after the end
	// was announced: until load balancers know. Drain is how long what is
	// under way may take then.
	Withdraw, Drain time.Duration
	Log             *slog.Logger
	Observer        Observer
}

// Observer is told what happens.
type Observer interface {
	// Done is called once for each request, after its last byte.
	Done(*Record)
	// Connections is a change in open connections; 0 is one refused.
	Connections(delta int)
}

// Record is one request, for metrics and logs.
type Record struct {
	Start    time.Time
	Duration time.Duration
	Client   netip.Addr
	Method   string
	Host     string
	URI      string
	Proto    string
	TLS      bool
	// Status is 499 where the client left before an answer.
	Status            int
	BytesIn, BytesOut int64
	Ingress           cluster.ObjectName
	Backend           web.BackendID
	Endpoint          string
	Attempts          int
	ID                string
	UserAgent         string
	Referer           string
	// Quiet asks for no line in the access log.
	Quiet bool
	// Error is why the proxy itself answered, if it was not asked to.
	Error string
}

// Proxy is the engine.
type Proxy struct {
	cfg     Config
	log     *slog.Logger
	pool    upstream.Pool
	buffers buffers
	reverse *httputil.ReverseProxy
	auth    *authenticator

	// setting is held by Set; reading the state needs no lock.
	setting  sync.Mutex
	state    atomic.Pointer[state]
	draining atomic.Bool
	active   atomic.Int64
}

// state is what requests see. It never changes.
type state struct {
	program  *web.Program
	backends map[web.BackendID]*upstream.Backend
}

// New makes a proxy that answers 404 to everything.
func New(cfg Config) *Proxy {
	fill(&cfg.MaxConnections, 20000)
	fill(&cfg.HeaderBytes, 32<<10)
	fill(&cfg.HeaderTime, 10*time.Second)
	fill(&cfg.BodyTime, 60*time.Second)
	fill(&cfg.IdleTime, 75*time.Second)
	fill(&cfg.WriteTime, 60*time.Second)
	fill(&cfg.ReadTime, 60*time.Second)
	fill(&cfg.HTTPSPort, 443)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Observer == nil {
		cfg.Observer = nobody{}
	}
	p := &Proxy{cfg: cfg, log: cfg.Log, auth: newAuthenticator()}
	p.state.Store(&state{program: &web.Program{}})
	p.reverse = p.newReverse()
	return p
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Set replaces the program. Requests under way keep the one they began with;
// connections to endpoints that stay are kept.
func (p *Proxy) Set(program *web.Program) {
	p.setting.Lock()
	defer p.setting.Unlock()
	old := p.state.Load()
	next := &state{program: program, backends: make(map[web.BackendID]*upstream.Backend, len(program.Backends))}
	for id, b := range program.Backends {
		if have := old.backends[id]; have != nil && have.Backend == b {
			next.backends[id] = have
		} else {
			next.backends[id] = p.pool.Acquire(b)
		}
	}
	p.state.Store(next)
	for id, b := range old.backends {
		if next.backends[id] != b {
			p.pool.Release(b)
		}
	}
}

// Program is the one in force.
func (p *Proxy) Program() *web.Program { return p.state.Load().program }

// Active is how many requests are under way, tunnels included.
func (p *Proxy) Active() int { return int(p.active.Load()) }

// Draining reports whether the end was announced.
func (p *Proxy) Draining() bool { return p.draining.Load() }

// Endpoints is how many endpoints are known.
func (p *Proxy) Endpoints() int { return p.pool.Size() }

func (p *Proxy) trusts(a netip.Addr) bool {
	return within(p.cfg.Trusted, a)
}

func within(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(r netip.Prefix) bool { return r.Contains(a) })
}

type nobody struct{}

func (nobody) Done(*Record)    {}
func (nobody) Connections(int) {}

// wait sleeps, or returns early when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
