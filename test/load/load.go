// Package load sends what must not be lost while something is broken: numbered
// packets, a thousand a second, whose answers carry the number back; more of
// them from a new port each, and short TCP connections, one after the other;
// and a long one that streams all the time.
// Inputs are network namespaces and addresses, of pods made by a test or of a
// real cluster (live.Pod); output is a Result that counts what was lost and
// says when. The sockets are this process' own, so nothing has to run in a
// pod. It refuses to judge: what may be lost is the test's to say.
//
//	s := load.Listen(t, load.In(path), netip.AddrPortFrom(pod, 0))
//	l := load.Start(t, load.In(other), s.Addr, s)
//	… break something; l.After(100) waits for a hundred packets more …
//	l.Stop().Lossless(t)
//
// What must not get through is sent by Knock.
//
// The address that is dialled need not be the server's own: a Service's leads
// to one of several, and Apart makes sure that it leads to no other.
package load

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/thread"
)

// Place is a network namespace: it runs a function on a thread inside of it.
type Place func(do func() error) error

// In is the namespace that a file names, such as /run/netns/x.
func In(path string) Place {
	return func(do func() error) error { return thread.In(path, do) }
}

const (
	// every is the time between two packets.
	every = time.Millisecond
	// burst is how many may be sent at once.
	burst = 50
	// askPatience is how long an answer is waited for before the next is asked.
	askPatience = 2 * time.Second
	// settle is how long no answer must have come for the rest to be lost: a
	// machine without a free processor has many still to read.
	settle = 3 * time.Second
)

// Load is traffic from one place to one address.
type Load struct {
	from    Place
	to      netip.AddrPort
	every   time.Duration // between two packets
	id      uint64        // tells this load's packets from another's
	servers []*Server
	packets net.Conn
	begun   time.Time
	ctx     context.Context
	end     context.CancelFunc
	over    context.Context // after which no answer counts
	finish  context.CancelFunc
	running sync.WaitGroup
	sent    chan struct{} // one value for each packet, for After
	quiet   chan struct{} // closed after the last packet

	mu     sync.Mutex // guards the following
	at     []time.Duration
	back   map[uint64]bool
	last   time.Time // of the answers
	result Result
}

// Start begins to send from a place to an address that leads to one of the
// servers, and returns when a first packet and a first connection have come
// through: what does not work beforehand is no fault's doing.
func Start(t testing.TB, from Place, to netip.AddrPort, servers ...*Server) *Load {
	t.Helper()
	return start(t, from, to, every, servers)
}

// Gently is Start with a tenth of the packets, for many loads at once.
func Gently(t testing.TB, from Place, to netip.AddrPort, servers ...*Server) *Load {
	t.Helper()
	return start(t, from, to, 10*every, servers)
}

func start(t testing.TB, from Place, to netip.AddrPort, every time.Duration, servers []*Server) *Load {
	t.Helper()
	l := &Load{
		from: from, to: to, every: every, id: rand.Uint64(), servers: servers, begun: time.Now(),
		sent: make(chan struct{}, 1<<20), quiet: make(chan struct{}), back: map[uint64]bool{},
	}
	if err := from(func() (err error) {
		l.packets, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
		return err
	}); err != nil {
		t.Fatalf("send to %s: %v", to, err)
	}
	enlarge(l.packets.(*net.UDPConn))
	if err := l.first(); err != nil {
		l.packets.Close()
		t.Fatalf("nothing is broken yet, but %s is not reached: %v", to, err)
	}
	l.begun = time.Now()
	l.ctx, l.end = context.WithCancel(context.Background())
	l.over, l.finish = context.WithCancel(context.Background())
	t.Cleanup(func() { l.end(); l.finish(); l.packets.Close(); l.running.Wait() })
	for _, part := range []func(){l.send, l.receive, l.connect, l.stream} {
		l.running.Go(part)
	}
	return l
}

// first tries both protocols until they work, for as long as a neighbour's
// address or a program's rules may take.
func (l *Load) first() (err error) {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		if err = l.ping(); err == nil {
			if _, err = l.exchange(); err == nil {
				return nil
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

// ping sends a packet of another load's, which nobody counts.
func (l *Load) ping() error {
	if _, err := l.packets.Write(packet(0, 0)); err != nil {
		return err
	}
	_ = l.packets.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
	defer func() { _ = l.packets.SetReadDeadline(time.Time{}) }()
	_, err := l.packets.Read(make([]byte, packetSize))
	return err
}

// packetSize is that of a load's identity and a number.
const packetSize = 16

func packet(id, n uint64) []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, id), n)
}

func unpack(b []byte) (id, n uint64, ok bool) {
	if len(b) != packetSize {
		return 0, 0, false
	}
	return binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]), true
}

// send numbers packets from 0. After a moment without a processor it makes up
// for what is due, but not for a stall: a long burst would be lost in a buffer.
func (l *Load) send() {
	defer close(l.quiet)
	tick := time.NewTicker(l.every)
	defer tick.Stop()
	for due := time.Now(); ; {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		if late := time.Since(due); late > burst*l.every {
			due = due.Add(late - burst*l.every)
		}
		for ; time.Since(due) >= 0; due = due.Add(l.every) {
			l.sendOne(l.packets)
		}
	}
}

// sendOne sends a packet, and reports its number: none after the end, for Stop
// waits for the answers to those that were numbered before it.
func (l *Load) sendOne(by net.Conn) (n uint64, sent bool) {
	l.mu.Lock()
	if l.ctx.Err() != nil {
		l.mu.Unlock()
		return 0, false
	}
	n = uint64(len(l.at))
	l.at = append(l.at, time.Since(l.begun))
	l.mu.Unlock()
	// An error is that of an earlier packet (ICMP): this one was not sent,
	// and is missed at the end.
	_, _ = by.Write(packet(l.id, n))
	select {
	case l.sent <- struct{}{}:
	default: // nobody waits
	}
	return n, true
}

// ask sends a packet from a new port and waits for its answer. One that comes
// later counts as well: that port is open until then.
func (l *Load) ask() error {
	var c net.Conn
	if err := l.from(func() (err error) {
		c, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(l.to))
		return err
	}); err != nil {
		return err
	}
	n, sent := l.sendOne(c)
	if !sent {
		c.Close()
		return nil
	}
	answered := make(chan struct{})
	l.running.Go(func() {
		defer close(answered)
		defer c.Close()
		defer context.AfterFunc(l.over, func() { c.Close() })()
		buf := make([]byte, 2*packetSize)
		size, err := c.Read(buf) // an error is missed at the end
		if id, got, ok := unpack(buf[:size]); err == nil && ok && id == l.id && got == n {
			l.mu.Lock()
			l.back[n] = true
			l.mu.Unlock()
		}
	})
	select {
	case <-answered:
	case <-time.After(askPatience):
	}
	return nil
}

func (l *Load) receive() {
	buf := make([]byte, 2*packetSize)
	for {
		size, err := l.packets.Read(buf)
		if err != nil && l.ctx.Err() != nil && !transient(err) {
			return
		}
		if id, n, ok := unpack(buf[:size]); err == nil && ok && id == l.id {
			now := time.Now()
			l.mu.Lock()
			l.back[n] = true
			if !l.last.IsZero() {
				l.result.Silence = max(l.result.Silence, now.Sub(l.last))
			}
			l.last = now
			l.mu.Unlock()
		}
	}
}

// After waits until so many more packets were sent.
func (l *Load) After(packets int) {
	for len(l.sent) > 0 {
		<-l.sent
	}
	for range packets {
		<-l.sent
	}
}

// Stop ends the load, waits for what is still on its way, and counts.
func (l *Load) Stop() Result {
	l.end()
	<-l.quiet
	took := time.Since(l.begun)
	for last, since := l.missing(), time.Now(); last > 0 && time.Since(since) < settle; {
		time.Sleep(10 * time.Millisecond)
		if now := l.missing(); now != last {
			last, since = now, time.Now()
		}
	}
	l.finish()
	l.packets.Close()
	l.running.Wait()
	there := map[uint64]bool{}
	for _, s := range l.servers {
		s.counted(l.id, there)
	}
	r := l.result
	r.Sent, r.Took = len(l.at), took
	for n, at := range l.at {
		switch n := uint64(n); {
		case !there[n]:
			r.LostThere = append(r.LostThere, at)
		case !l.back[n]:
			r.LostBack = append(r.LostBack, at)
		}
	}
	return r
}

func (l *Load) missing() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.at) - len(l.back)
}

// enlarge gives a socket room for what arrives while we get no processor.
func enlarge(c *net.UDPConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)
	})
}
