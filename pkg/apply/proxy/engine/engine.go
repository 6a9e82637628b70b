// Package engine is what the two engines of the proxy have in common. Inputs
// are limits and web.Programs, each replacing the one before in a single step
// while requests go on under the one they began with; outputs are the table a
// request is routed by, who a request comes from, and the record of it for
// metrics and logs. It speaks no protocol, and believes nobody whom the
// administrator did not name.
package engine

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/upstream"
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
	// NetHTTP leaves every connection to net/http, HTTP/1.1 too.
	NetHTTP bool
	// Withdraw is how long new connections are still taken after the end
	// was announced: until load balancers know. Drain is how long what is
	// under way may take then.
	Withdraw, Drain time.Duration
	Log             *slog.Logger
	Observer        Observer
}

// Shared is the state of both engines.
type Shared struct {
	Config
	pool upstream.Pool

	// setting is held by Set; reading the table needs no lock.
	setting  sync.Mutex
	table    atomic.Pointer[Table]
	draining atomic.Bool
	active   atomic.Int64
}

// Table is what requests see. It never changes.
type Table struct {
	*web.Program
	backends map[web.BackendID]*upstream.Backend
}

// Backend is the one that a route names, with its endpoints.
func (t *Table) Backend(r *web.Route) *upstream.Backend { return t.backends[r.Backend] }

// New begins with a table that has no route.
func New(cfg Config) *Shared {
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
	s := &Shared{Config: cfg}
	s.table.Store(&Table{Program: &web.Program{}})
	return s
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Set replaces the program. Requests under way keep the one they began with;
// connections to endpoints that stay are kept.
func (s *Shared) Set(program *web.Program) {
	s.setting.Lock()
	defer s.setting.Unlock()
	old := s.table.Load()
	next := &Table{Program: program, backends: make(map[web.BackendID]*upstream.Backend, len(program.Backends))}
	for id, b := range program.Backends {
		if have := old.backends[id]; have != nil && have.Backend == b {
			next.backends[id] = have
		} else {
			next.backends[id] = s.pool.Acquire(b)
		}
	}
	s.table.Store(next)
	for id, b := range old.backends {
		if next.backends[id] != b {
			s.pool.Release(b)
		}
	}
}

// Table is the one in force.
func (s *Shared) Table() *Table { return s.table.Load() }

// Program is the one in force.
func (s *Shared) Program() *web.Program { return s.Table().Program }

// Begin counts a request as under way, until End.
func (s *Shared) Begin() { s.active.Add(1) }

// End hands on what became of it.
func (s *Shared) End(r *Record) {
	r.Duration = time.Since(r.Start)
	s.Observer.Done(r)
	s.active.Add(-1)
}

// Active is how many requests are under way, tunnels included.
func (s *Shared) Active() int { return int(s.active.Load()) }

// Leave announces the end: every answer asks its client to come back on
// another connection.
func (s *Shared) Leave() { s.draining.Store(true) }

// Draining reports whether the end was announced.
func (s *Shared) Draining() bool { return s.draining.Load() }

// Endpoints is how many endpoints are known.
func (s *Shared) Endpoints() int { return s.pool.Size() }

// CloseIdle closes the connections to endpoints that carry no request.
func (s *Shared) CloseIdle() { s.pool.CloseIdle() }

// ReadSilence is how long an endpoint may be silent on a route.
func (s *Shared) ReadSilence(r *web.Route) time.Duration {
	if r.Read > 0 {
		return r.Read
	}
	return s.ReadTime
}

// SendSilence is how long an endpoint may take nothing.
func (s *Shared) SendSilence(r *web.Route) time.Duration {
	if r.Send > 0 {
		return r.Send
	}
	return s.ReadSilence(r)
}

// Late reports whether an error is that time ran out.
func Late(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// Within reports whether an address is in one of the ranges.
func Within(list []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(list, func(r netip.Prefix) bool { return r.Contains(a) })
}
