package load

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

const (
	// knockEvery is the time between two packets of the flow that lasts, and
	// newEvery that between two new ports, for either protocol.
	knockEvery = 10 * time.Millisecond
	newEvery   = 100 * time.Millisecond
	// knockPatience is how long a connection may take: nobody is at home, or
	// somebody is.
	knockPatience = 500 * time.Millisecond
)

// Knocks are what may not get through: packets of a flow that lasts, others
// from a new port each, and connections. Nobody waits for their answers.
type Knocks struct {
	from   Place
	server *Server
	id     uint64
	ctx    context.Context
	end    context.CancelFunc

	running sync.WaitGroup

	mu              sync.Mutex // guards the following
	sent, connected int
}

// Heard is what got through.
type Heard struct{ Packets, Connections int }

// Knock begins to send from a place to a server, until the test ends.
func Knock(t testing.TB, from Place, server *Server) *Knocks {
	t.Helper()
	k := &Knocks{from: from, server: server, id: rand.Uint64()}
	lasting, err := k.dial("udp")
	if err != nil {
		t.Fatalf("send to %s: %v", server.Addr, err)
	}
	k.ctx, k.end = context.WithCancel(context.Background())
	t.Cleanup(func() { k.end(); k.running.Wait(); lasting.Close() })
	k.each(knockEvery, func() { k.send(lasting) })
	k.each(newEvery, func() {
		if c, err := k.dial("udp"); err == nil {
			k.send(c)
			c.Close()
		}
	})
	k.each(newEvery, func() {
		// Some are on their way at once.
		k.running.Go(func() {
			if c, err := k.dial("tcp"); err == nil {
				c.Close()
				k.mu.Lock()
				k.connected++
				k.mu.Unlock()
			}
		})
	})
	return k
}

// each does something again and again, until the end.
func (k *Knocks) each(every time.Duration, do func()) {
	k.running.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-k.ctx.Done():
				return
			case <-tick.C:
				do()
			}
		}
	})
}

func (k *Knocks) dial(network string) (c net.Conn, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), knockPatience)
	defer cancel()
	err = k.from(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, k.server.Addr.String())
		return err
	})
	return c, err
}

func (k *Knocks) send(by net.Conn) {
	k.mu.Lock()
	n := uint64(k.sent)
	k.sent++
	k.mu.Unlock()
	_, _ = by.Write(packet(k.id, n)) // an error is that of an earlier packet
}

// Heard is what has got through until now.
func (k *Knocks) Heard() Heard {
	k.mu.Lock()
	defer k.mu.Unlock()
	return Heard{k.server.count(k.id), k.connected}
}

// Sent counts packets.
func (k *Knocks) Sent() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.sent
}

// Through waits until packets and connections get through.
func (k *Knocks) Through(t testing.TB) {
	t.Helper()
	k.until(t, "get through", func(began, now Heard, _ time.Duration) bool {
		return now.Packets > began.Packets && now.Connections > began.Connections
	})
}

// silence is how long nothing must have got through.
const silence = time.Second

// Silent waits until nothing gets through any more.
func (k *Knocks) Silent(t testing.TB) {
	t.Helper()
	k.until(t, "are not heard", func(_, _ Heard, unchanged time.Duration) bool { return unchanged > silence })
}

func (k *Knocks) until(t testing.TB, what string, done func(began, now Heard, unchanged time.Duration) bool) {
	t.Helper()
	began, start := k.Heard(), time.Now()
	for last, since := began, start; time.Since(start) < time.Minute; time.Sleep(10 * time.Millisecond) {
		now := k.Heard()
		if now != last {
			last, since = now, time.Now()
		}
		if done(began, now, time.Since(since)) {
			return
		}
	}
	t.Fatalf("not within a minute: knocks at %s %s; heard %+v, then %+v", k.server.Addr, what, began, k.Heard())
}
