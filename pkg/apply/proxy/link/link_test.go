package link

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
)

// peer accepts one connection after the other, and has serve talk on each.
func peer(t *testing.T, serve func(c *net.TCPConn)) *Pool {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c.(*net.TCPConn)) }()
		}
	}()
	return &Pool{Address: l.Addr().String()}
}

func (p *Pool) dial(t *testing.T) *Link {
	t.Helper()
	l, err := p.Dial(t.Context(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// hold keeps a connection open without a word.
func hold(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }

func TestAsk(t *testing.T) {
	p := peer(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	l := p.dial(t)
	for i := range 100 {
		in, err := l.Ask([]byte{byte(i), 'x'})
		if err != nil {
			t.Fatal(err)
		}
		for len(in.Bytes()) < 2 {
			if in, err = l.Fill(in); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(in.Bytes(), []byte{byte(i), 'x'}) {
			t.Fatalf("%d: %q", i, in.Bytes())
		}
		in.Free()
	}
}

// TestAskMoreThanTheKernelTakes writes what does not fit into any buffer to a
// peer that reads late.
func TestAskMoreThanTheKernelTakes(t *testing.T) {
	question := bytes.Repeat([]byte("0123456789"), 2<<20)
	p := peer(t, func(c *net.TCPConn) {
		time.Sleep(50 * time.Millisecond)
		got := make([]byte, len(question))
		if _, err := io.ReadFull(c, got); err == nil && bytes.Equal(got, question) {
			io.WriteString(c, "all of it")
		}
	})
	in, err := p.dial(t).Ask(question)
	if err != nil || string(in.Bytes()) != "all of it" {
		t.Fatal(in, err)
	}
}

// TestStale has the peer speak or leave before it was asked: nothing is sent.
func TestStale(t *testing.T) {
	for what, serve := range map[string]func(*net.TCPConn){
		"it spoke":         func(c *net.TCPConn) { io.WriteString(c, "HTTP/1.1 408 Too late\r\n\r\n"); hold(c) },
		"it left":          func(*net.TCPConn) {},
		"it reset":         func(c *net.TCPConn) { c.SetLinger(0) },
		"it will not send": func(c *net.TCPConn) { c.CloseWrite(); hold(c) },
	} {
		connected := make(chan bool)
		l := peer(t, func(c *net.TCPConn) { <-connected; serve(c) }).dial(t)
		close(connected)
		await.Success(t, 15*time.Second, func() error {
			if l.Quiet() {
				return errors.New(what + " and the kernel does not say so")
			}
			return nil
		})
		if in, err := l.Ask([]byte("question")); !errors.Is(err, ErrStale) {
			t.Errorf("%s: %v %v", what, in, err)
		}
	}
}

func TestSilence(t *testing.T) {
	l := peer(t, hold).dial(t)
	l.Silence(time.Now(), 20*time.Millisecond)
	if in, err := l.Ask([]byte("?")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v %v", in, err)
	}
	// Without a bound, another goroutine ends the wait.
	l = peer(t, hold).dial(t)
	l.Silence(time.Now(), 20*time.Millisecond)
	l.Silence(time.Now(), 0)
	ended := make(chan error, 1)
	go func() { _, err := l.Ask([]byte("?")); ended <- err }()
	select {
	case err := <-ended:
		t.Errorf("it ended by itself: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	l.Interrupt()
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

func TestStall(t *testing.T) {
	l := peer(t, func(*net.TCPConn) { <-t.Context().Done() }).dial(t)
	l.Stall(50 * time.Millisecond)
	var err error
	for range 1000 {
		if _, err = l.Write(make([]byte, 1<<20)); err != nil {
			break
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// TestDeadlineIsMovedSeldom counts what a busy connection costs.
func TestDeadlineIsMovedSeldom(t *testing.T) {
	c := &counted{}
	var d Deadline
	now := time.Now()
	for range 1000 {
		now = now.Add(time.Millisecond)
		d.Move(c, now, 10*time.Second)
	}
	if c.moves != 1 || c.at.Before(now.Add(10*time.Second)) {
		t.Errorf("%d moves, to %v from %v", c.moves, c.at, now)
	}
	d.Move(c, now, time.Second)
	if c.moves != 2 || c.at.After(now.Add(2*time.Second)) {
		t.Errorf("%d moves, to %v from %v", c.moves, c.at, now)
	}
	d.Move(c, now, 0)
	if c.moves != 3 || !c.at.IsZero() {
		t.Errorf("%d moves, to %v", c.moves, c.at)
	}
}

type counted struct {
	net.Conn
	moves int
	at    time.Time
}

func (c *counted) SetReadDeadline(t time.Time) error { c.moves++; c.at = t; return nil }

func TestPool(t *testing.T) {
	p := peer(t, hold)
	a, b := p.dial(t), p.dial(t)
	now := time.Now()
	if p.Idle(now) != nil {
		t.Error("a connection that nobody gave back")
	}
	p.Keep(a, now)
	p.Keep(b, now.Add(time.Second))
	if l := p.Idle(now.Add(IdleTime)); l != b {
		t.Error("not the one used last")
	}
	if l := p.Idle(now.Add(IdleTime)); l != nil {
		t.Error("one that was idle for too long")
	}
	p.Close()
	p.Keep(b, now)
	if p.Size() != 0 || b.Quiet() {
		t.Error("a connection was kept after the address was given up")
	}
}

func TestBuffer(t *testing.T) {
	b := NewBuffer()
	b.Added(copy(b.Space(), "head and body"))
	b.Drop(len("head "))
	if !b.Prepend([]byte("a much longer head, ")) || string(b.Bytes()) != "a much longer head, and body" {
		t.Errorf("%q", b.Bytes())
	}
	if b.Prepend(make([]byte, 2*room)) {
		t.Error("more was prepended than there is room for")
	}
	b.Append(bytes.Repeat([]byte("x"), 2*size))
	if !bytes.HasPrefix(b.Bytes(), []byte("a much longer head, and bodyxxx")) || len(b.Bytes()) != len("a much longer head, and body")+2*size {
		t.Errorf("%d bytes", len(b.Bytes()))
	}
	b.Free()
	b = NewBuffer()
	b.Added(len(b.Space()))
	if held := len(b.Bytes()); !b.Grow(4*size) || len(b.Bytes()) != held || len(b.Space()) == 0 {
		t.Error("it does not grow")
	}
	if b.Grow(size) {
		t.Error("it grows past its limit")
	}
}
