// Package ends is the two ends of a way that packets take: a client that sends
// and asks, and a server that answers and counts. Inputs are where each is, and
// the address by which the one reaches the other; outputs are what each kind of
// traffic took, and what it cost the processors. It refuses to know what is
// between them, and whether that is much.
package ends

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// chunk is what a stream writes and reads at once.
	chunk = 128 << 10
	// small is what a small packet carries: 60 bytes with its headers.
	small = 18
	// warm is how long what follows each other goes before anybody counts.
	warm = 20 * time.Millisecond
	// patience is how long nothing may happen.
	patience = 3 * time.Second
)

// Place is a network namespace.
type Place interface{ Do(work func()) error }

// Client is the near end of a way.
type Client struct {
	Place
	To    netip.Addr
	At    *Server // to whom it leads
	Clock Clock
}

// dial connects from the thread's namespace.
func (c Client) dial(kind, port int) (fd int, err error) {
	domain, to := name(netip.AddrPortFrom(c.To, uint16(port)))
	if fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, err
	}
	limit := unix.NsecToTimeval(patience.Nanoseconds())
	err = errors.Join(
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit), // of connect(2) too
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
	)
	if kind == unix.SOCK_STREAM {
		err = errors.Join(err,
			unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
			// It ends by a reset: no port rests.
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}),
		)
	}
	for err == nil {
		if err = unix.Connect(fd, to); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("connect to %s, port %d: %w", c.To, port, err), unix.Close(fd))
	}
	return fd, nil
}

// in works on a thread of the client's namespace.
func (c Client) in(work func() error) (err error) {
	in := c.Do(func() { err = work() })
	return errors.Join(in, err)
}

// ask sends a byte and waits for it.
func ask(fd int, data []byte) error {
	if _, err := write(fd, data); err != nil {
		return err
	}
	n, err := read(fd, data)
	if n < 1 && err == nil {
		return errors.New("the server has closed the connection")
	}
	return err
}

// RoundTrips are requests on one connection, one after the other.
func (c Client) RoundTrips(window time.Duration) (took []time.Duration, err error) {
	err = c.in(func() error {
		fd, err := c.dial(unix.SOCK_STREAM, RequestPort)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		var at seat
		at.take(first)
		data := []byte{first}
		took, err = repeat(window, func() error { return ask(fd, data) })
		return err
	})
	return took, err
}

// Connections are made one after the other, each with one request.
func (c Client) Connections(window time.Duration) (took []time.Duration, err error) {
	err = c.in(func() (err error) {
		var at seat
		at.take(first)
		data := []byte{first}
		took, err = repeat(window, func() error {
			fd, err := c.dial(unix.SOCK_STREAM, RequestPort)
			if err != nil {
				return err
			}
			return errors.Join(ask(fd, data), unix.Close(fd))
		})
		return err
	})
	return took, err
}

// repeat does something for a while, after it has been warmed up.
func repeat(window time.Duration, do func() error) (took []time.Duration, err error) {
	took = make([]time.Duration, 0, window/time.Microsecond) // none is faster
	for began := time.Now(); time.Since(began) < warm; {
		if err := do(); err != nil {
			return nil, err
		}
	}
	for began, now := time.Now(), time.Now(); now.Sub(began) < window; {
		if err := do(); err != nil {
			return nil, err
		}
		end := time.Now()
		took, now = append(took, end.Sub(now)), end
	}
	return took, nil
}

// Flow is what came to the server in a while, and what that cost.
type Flow struct {
	Count     int64
	Took, CPU time.Duration
}

// watch counts for a while, once it has been warmed up.
func (c Client) watch(window time.Duration, counter *atomic.Int64) (f Flow, err error) {
	time.Sleep(warm)
	used, err := c.Clock.now()
	if err != nil {
		return f, err
	}
	began, before := time.Now(), counter.Load()
	for f.Count == 0 && f.Took < patience { // others may have the processors meanwhile
		time.Sleep(window)
		f.Took, f.Count = time.Since(began), counter.Load()-before
	}
	now, err := c.Clock.now()
	f.CPU = now - used
	if err == nil && f.Count == 0 {
		err = fmt.Errorf("nothing came to the server of %s", c.To)
	}
	return f, err
}

// send writes the same to some sockets, each from a thread of its own, while
// work runs. Where two processors have one thread each, they stay there.
func send(fds []int, size int, work func() error) error {
	where := [2]byte{anywhere, anywhere}
	if len(fds) == 1 {
		where = [2]byte{first, second}
	}
	var (
		stop    atomic.Bool
		running sync.WaitGroup
		failed  = make([]error, len(fds))
	)
	for i, fd := range fds {
		running.Go(func() {
			runtime.LockOSThread() // never unlocked
			var at seat
			at.take(where[0])
			data := make([]byte, size)
			data[0] = where[1]
			for !stop.Load() && failed[i] == nil {
				_, failed[i] = write(fd, data)
			}
		})
	}
	err := work()
	stop.Store(true)
	running.Wait()
	return errors.Join(append(failed, err)...)
}

// Streams send as much as they can at the same time.
func (c Client) Streams(n int, window time.Duration) (f Flow, err error) {
	var fds []int
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		for c.At.streams.Load() > 0 { // so that none takes the next one's time
			time.Sleep(time.Millisecond)
		}
	}()
	if err := c.in(func() error {
		for range n {
			fd, err := c.dial(unix.SOCK_STREAM, StreamPort)
			if err != nil {
				return err
			}
			fds = append(fds, fd)
		}
		return nil
	}); err != nil {
		return f, err
	}
	err = send(fds, chunk, func() (err error) {
		f, err = c.watch(window, &c.At.bytes)
		return err
	})
	return f, err
}

// Packets are small ones, as many as one sender can send.
func (c Client) Packets(window time.Duration) (f Flow, err error) {
	var fd int
	if err := c.in(func() (err error) { fd, err = c.dial(unix.SOCK_DGRAM, PacketPort); return err }); err != nil {
		return f, err
	}
	defer unix.Close(fd)
	err = send([]int{fd}, small, func() (err error) {
		f, err = c.watch(window, &c.At.packets)
		return err
	})
	return f, err
}
