// Package upstream carries requests to endpoints. Inputs are a request and
// the back end that shall answer it; output is the response of one of its
// endpoints. It balances, keeps connections for reuse, and tries again where
// that cannot do harm. It refuses to send twice what may have been read once,
// unless it is safe to repeat.
package upstream

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/link"
	"poplin.dev/poplin/pkg/program/web"
)

// restTime is how long an endpoint that refused a connection is passed over
// while others are there.
const restTime = time.Second

// Pool is every endpoint of every back end, with its connections: back ends
// that share an endpoint share them. The zero value is empty.
type Pool struct {
	mu        sync.Mutex
	endpoints map[netip.AddrPort]*endpoint
}

// endpoint is one address and port.
type endpoint struct {
	addr netip.AddrPort
	// id is what a cookie says of it: no address leaves the cluster.
	id string
	// users is guarded by Pool.mu.
	users int

	load atomic.Int64 // requests under way
	rest atomic.Int64 // Unix nanoseconds until which it is passed over

	links      link.Pool
	plain      atomic.Pointer[http.Transport]
	transports sync.Map // profile to *http.Transport
}

// Backend is a back end with its endpoints. It never changes.
type Backend struct {
	*web.Backend
	endpoints []*endpoint
}

// Acquire makes a back end's endpoints ready for use, until Release.
func (p *Pool) Acquire(b *web.Backend) *Backend {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.endpoints == nil {
		p.endpoints = map[netip.AddrPort]*endpoint{}
	}
	out := &Backend{Backend: b}
	for _, addr := range b.Endpoints() {
		e := p.endpoints[addr]
		if e == nil {
			sum := sha256.Sum256([]byte(addr.String()))
			e = &endpoint{addr: addr, id: hex.EncodeToString(sum[:8]), links: link.Pool{Address: addr.String()}}
			p.endpoints[addr] = e
		}
		e.users++
		out.endpoints = append(out.endpoints, e)
	}
	return out
}

// Release gives up a back end. Requests under way end in peace; connections
// of endpoints that nobody uses any more close as they become idle.
func (p *Pool) Release(b *Backend) {
	p.mu.Lock()
	var gone []*endpoint
	for _, e := range b.endpoints {
		if e.users--; e.users == 0 {
			delete(p.endpoints, e.addr)
			gone = append(gone, e)
		}
	}
	p.mu.Unlock()
	for _, e := range gone {
		e.closeIdle()
	}
}

// Size is how many endpoints there are.
func (p *Pool) Size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.endpoints)
}

// CloseIdle closes the connections that carry no request.
func (p *Pool) CloseIdle() {
	p.mu.Lock()
	all := make([]*endpoint, 0, len(p.endpoints))
	for _, e := range p.endpoints {
		all = append(all, e)
	}
	p.mu.Unlock()
	for _, e := range all {
		e.closeIdle()
	}
}

func (e *endpoint) closeIdle() {
	e.links.Close()
	if t := e.plain.Load(); t != nil {
		t.CloseIdleConnections()
	}
	e.transports.Range(func(_, t any) bool { t.(*http.Transport).CloseIdleConnections(); return true })
}

// pick chooses among the endpoints that were not tried yet: the less loaded
// of two at random, which keeps load even without anybody counting all. One
// that rests is taken only if all do.
func (b *Backend) pick(tried []*endpoint) *endpoint {
	n := len(b.endpoints)
	if n == 0 {
		return nil
	}
	now := time.Now().UnixNano()
	usable := func(e *endpoint) bool {
		return e.rest.Load() < now && (len(tried) == 0 || !slices.Contains(tried, e))
	}
	i := rand.IntN(n)
	first, second := b.endpoints[i], b.endpoints[i]
	if n > 1 {
		second = b.endpoints[(i+1+rand.IntN(n-1))%n]
	}
	if second.load.Load() < first.load.Load() {
		first, second = second, first
	}
	for _, e := range []*endpoint{first, second} {
		if usable(e) {
			return e
		}
	}
	// Unlucky or ill: look at all of them, from a random start.
	var best *endpoint
	start := rand.IntN(n)
	for i := range n {
		e := b.endpoints[(start+i)%n]
		if slices.Contains(tried, e) {
			continue
		}
		if usable(e) {
			return e
		}
		if best == nil || e.rest.Load() < best.rest.Load() {
			best = e
		}
	}
	return best
}

// sticky finds the endpoint that a cookie names.
func (b *Backend) sticky(id string) *endpoint {
	for _, e := range b.endpoints {
		if e.id == id {
			return e
		}
	}
	return nil
}

// Has reports whether the endpoint that a cookie names is still there.
func (b *Backend) Has(id string) bool { return b.sticky(id) != nil }
