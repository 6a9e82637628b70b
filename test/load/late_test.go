package load

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// An answer that comes late, because its server had no processor, is not lost:
// neither one to a port that asked once, nor those that are still to be read
// when the load has ended.
func TestLateAnswersCount(t *testing.T) {
	t.Parallel()
	here := func(do func() error) error { return do() }
	server := Listen(t, here, netip.MustParseAddrPort("127.0.0.1:0"))
	l := Start(t, here, server.Addr, server)
	l.After(100)
	server.mu.Lock() // it reads a packet, and stops before its answer
	err := l.ask()
	server.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	l.After(10)
	if r := l.Stop(); r.Silence < askPatience*9/10 {
		t.Errorf("the server was held, and yet there was no silence: %v", r)
	} else {
		r.Lossless(t)
	}
}

// A port that is opened while the load ends sends nothing: nobody would wait
// for its answer.
func TestNothingIsSentAfterTheEnd(t *testing.T) {
	t.Parallel()
	here := func(do func() error) error { return do() }
	server := Listen(t, here, netip.MustParseAddrPort("127.0.0.1:0"))
	var late atomic.Bool
	l := Start(t, func(do func() error) error {
		defer func() {
			if late.Load() {
				time.Sleep(100 * time.Millisecond)
			}
		}()
		return do()
	}, server.Addr, server)
	l.After(200)
	late.Store(true)
	l.After(100)
	l.Stop().Lossless(t)
}
