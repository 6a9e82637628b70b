package link

import (
	"context"
	"net"
	"sync"
	"time"
)

const (
	// IdleTime is below what common servers keep an idle connection for
	// (Node.js and uvicorn 5 s), so that a request is rarely written to a
	// connection the server has just closed.
	IdleTime = 4 * time.Second
	// MaxIdle is per endpoint.
	MaxIdle = 512
)

// Pool is the idle connections to one address.
type Pool struct {
	Address string

	mu   sync.Mutex
	idle []*Link // the latest used last
	// closing keeps nothing for reuse; sweeping says that a timer runs.
	closing, sweeping bool
}

// Idle takes an idle connection, or none.
func (p *Pool) Idle(now time.Time) *Link {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	l := p.idle[n-1]
	if now.Sub(l.since) >= IdleTime {
		return nil // and the others are older
	}
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	return l
}

// Dial makes a connection.
func (p *Pool) Dial(ctx context.Context, within time.Duration) (*Link, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", p.Address)
	if err != nil {
		return nil, err
	}
	return newLink(conn)
}

// Keep gives a connection back that is open and silent.
func (p *Pool) Keep(l *Link, now time.Time) {
	l.since = now
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || len(p.idle) >= MaxIdle {
		l.Close()
		return
	}
	p.idle = append(p.idle, l)
	if !p.sweeping {
		p.sweeping = true
		time.AfterFunc(IdleTime, p.sweep)
	}
}

// sweep closes what was idle for too long. The oldest stand first.
func (p *Pool) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := 0
	for old < len(p.idle) && time.Since(p.idle[old].since) >= IdleTime {
		p.idle[old].Close()
		old++
	}
	p.idle = append(p.idle[:0], p.idle[old:]...)
	clear(p.idle[len(p.idle):cap(p.idle)])
	if p.sweeping = len(p.idle) > 0; p.sweeping {
		time.AfterFunc(IdleTime/2, p.sweep)
	}
}

// Close closes them, and those under way once they are given back.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.idle {
		l.Close()
	}
	p.idle, p.closing = nil, true
}

// Size is how many are idle.
func (p *Pool) Size() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.idle)
}
