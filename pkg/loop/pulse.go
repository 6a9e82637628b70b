package loop

import (
	"context"
	"sync"
	"time"
)

// Pulse tells whether workers make progress. One that does not come back from
// a pass hangs, in a lock or a system call, and what it keeps is kept by nobody:
// only from outside can that be seen.
type Pulse struct {
	mu   sync.Mutex
	busy map[*pass]bool // those that have not ended
}

// pass is one of a worker.
type pass struct {
	worker string
	since  time.Time
}

// NewPulse watches nobody yet.
func NewPulse() *Pulse { return &Pulse{busy: map[*pass]bool{}} }

type pulseKey struct{}

// Watch is ctx, whose workers p watches: all of them, because one that has to
// ask for it is the one that forgets to.
func (p *Pulse) Watch(ctx context.Context) context.Context {
	return context.WithValue(ctx, pulseKey{}, p)
}

// Longest is the worker that has been at one pass for the longest time, and for
// how long; "" while all of them rest.
func (p *Pulse) Longest() (name string, busy time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for now := range p.busy {
		if d := time.Since(now.since); name == "" || d > busy {
			name, busy = now.worker, d
		}
	}
	return name, busy
}

// begin counts a pass of a worker under ctx until it ends.
func begin(ctx context.Context, worker string) (end func()) {
	p, watched := ctx.Value(pulseKey{}).(*Pulse)
	if !watched {
		return func() {}
	}
	now := &pass{worker, time.Now()}
	p.mu.Lock()
	p.busy[now] = true
	p.mu.Unlock()
	return func() {
		p.mu.Lock()
		delete(p.busy, now)
		p.mu.Unlock()
	}
}
