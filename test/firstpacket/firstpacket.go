// Package firstpacket finds out what passes from a pod's first instant on. In:
// network namespaces, which may have no address yet, and where to send; out:
// how many datagrams came from whom. Each is sent every 5 ms, whether or not it
// can be sent yet. It refuses to judge: what may arrive is the test's to say.
package firstpacket

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"poplin.dev/poplin/test/load"
)

const (
	// every is the time between two datagrams to one address.
	every = 5 * time.Millisecond
	// Port is where ears are.
	Port = 4711
)

// Ear hears in one network namespace, under all addresses that it has.
type Ear struct {
	mu    sync.Mutex
	heard map[netip.Addr]int
}

// Listen opens an ear until the test ends.
func Listen(t testing.TB, at load.Place) (*Ear, error) {
	e := &Ear{heard: map[netip.Addr]int{}}
	var conn *net.UDPConn
	if err := at(func() (err error) {
		conn, err = net.ListenUDP("udp", &net.UDPAddr{Port: Port})
		return err
	}); err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		for buf := make([]byte, 64); ; {
			_, from, err := conn.ReadFromUDPAddrPort(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil { // others are ICMP's
				e.mu.Lock()
				e.heard[from.Addr().Unmap()]++
				e.mu.Unlock()
			}
		}
	}()
	return e, nil
}

// From is how many datagrams came from an address.
func (e *Ear) From(a netip.Addr) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[a]
}

// Voice sends until it is stopped, or the test ends.
type Voice struct {
	said atomic.Int64
	stop func()
}

// Speak sends to the ears at addresses.
func Speak(t testing.TB, at load.Place, to ...netip.Addr) (*Voice, error) {
	var conn *net.UDPConn
	if err := at(func() (err error) {
		conn, err = net.ListenUDP("udp", nil)
		return err
	}); err != nil {
		return nil, err
	}
	end := make(chan struct{})
	v := &Voice{stop: sync.OnceFunc(func() { close(end) })}
	t.Cleanup(v.stop)
	go func() {
		defer conn.Close()
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			for _, a := range to {
				if _, err := conn.WriteToUDPAddrPort([]byte("?"), netip.AddrPortFrom(a, Port)); err == nil {
					v.said.Add(1)
				}
			}
			select {
			case <-end:
				return
			case <-tick.C:
			}
		}
	}()
	return v, nil
}

// Stop ends it and returns how many datagrams went out of it.
func (v *Voice) Stop() int {
	v.stop()
	return int(v.said.Load())
}
