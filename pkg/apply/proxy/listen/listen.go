// Package listen accepts connections for a proxy. Inputs are a listening
// socket and limits; outputs are connections that know their client's true
// address (PROXY protocol, versions 1 and 2), cannot stall a writer for ever,
// and are no more than a limit. It refuses a PROXY header from whom the
// administrator did not name: anybody could claim to be anybody.
package listen

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Config is the limits.
type Config struct {
	// Max is how many connections may be open; more are closed at once.
	Max int
	// Stall is how long a peer may take no byte of what is written to it.
	Stall time.Duration
	// ProxyProtocol wants a PROXY header from every peer in Trusted. Others
	// are served under their own address.
	ProxyProtocol bool
	Trusted       []netip.Prefix
	// HeaderTime bounds the PROXY header.
	HeaderTime time.Duration
	// Opened is told of every change: +1, -1, or 0 for a connection over
	// the limit. May be nil.
	Opened func(delta int)
}

// Listener hands out connections.
type Listener struct {
	net.Listener
	cfg  Config
	open atomic.Int64
}

// New wraps a listening socket.
func New(l net.Listener, cfg Config) (*Listener, error) {
	if cfg.ProxyProtocol && len(cfg.Trusted) == 0 {
		return nil, errors.New("listen: the PROXY protocol needs the ranges of the load balancers that speak it: name them as trusted proxies")
	}
	if cfg.Opened == nil {
		cfg.Opened = func(int) {}
	}
	return &Listener{Listener: l, cfg: cfg}, nil
}

// Open is how many connections are open.
func (l *Listener) Open() int { return int(l.open.Load()) }

// Accept waits for the next connection within the limit.
func (l *Listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			// Out of file descriptors or memory: others will end soon.
			if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ECONNABORTED) {
				time.Sleep(5 * time.Millisecond)
				continue
			}
			return nil, err
		}
		if l.open.Add(1) > int64(l.cfg.Max) {
			l.open.Add(-1)
			l.cfg.Opened(0)
			c.Close()
			continue
		}
		l.cfg.Opened(1)
		return &conn{Conn: c, l: l, remote: c.RemoteAddr(), expect: l.expects(c.RemoteAddr())}, nil
	}
}

// expects reports whether a peer begins with a PROXY header.
func (l *Listener) expects(a net.Addr) bool {
	tcp, ok := a.(*net.TCPAddr)
	if !ok || !l.cfg.ProxyProtocol {
		return false
	}
	peer := tcp.AddrPort().Addr().Unmap()
	return slices.ContainsFunc(l.cfg.Trusted, func(p netip.Prefix) bool { return p.Contains(peer) })
}

// conn is an accepted connection.
type conn struct {
	net.Conn
	l      *Listener
	closed atomic.Bool
	// writable is until when (Unix nanoseconds) the write deadline stands: 0
	// is that there is none, theirs that somebody else has set one.
	writable atomic.Int64
	// shared says that many goroutines write.
	shared bool

	// The PROXY header is read when the address or the first byte is asked
	// for: on the connection's own goroutine, never on the one that accepts.
	header sync.Once
	expect bool
	remote net.Addr
	rest   []byte
	err    error
}

func (c *conn) RemoteAddr() net.Addr {
	c.header.Do(c.readHeader)
	return c.remote
}

func (c *conn) Read(p []byte) (int, error) {
	c.header.Do(c.readHeader)
	if c.err != nil {
		return 0, c.err
	}
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

// Write moves the deadline on, but not for every write: a quarter of the
// time may pass first.
func (c *conn) Write(p []byte) (int, error) {
	if c.shared {
		runtime.Gosched()
	}
	if stall := c.l.cfg.Stall; stall > 0 {
		now := time.Now()
		if c.writable.Load()-now.UnixNano() < int64(stall) {
			until := now.Add(stall + stall/4)
			c.writable.Store(until.UnixNano())
			if err := c.Conn.SetWriteDeadline(until); err != nil {
				return 0, err
			}
		}
	}
	return c.Conn.Write(p)
}

// theirs is later than any deadline of ours.
const theirs = math.MaxInt64

// SetWriteDeadline holds until it is taken back with the zero time, as
// crypto/tls and net/http do after a handshake. Without one, Write sets its own.
func (c *conn) SetWriteDeadline(t time.Time) error {
	err := c.Conn.SetWriteDeadline(t)
	if t.IsZero() {
		c.writable.Store(0)
	} else {
		c.writable.Store(theirs)
	}
	return err
}

// SetDeadline is for both directions.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.l.open.Add(-1)
		c.l.cfg.Opened(-1)
	}
	return c.Conn.Close()
}

// Share says that c, as Accept returned it, carries many exchanges at once.
// From then on each write lets other goroutines run first. net/http sends what
// its HTTP/2 streams have ready as soon as one of them has something, and with
// a system call for each piece that is twice for an answer; those that run
// first have more ready. It must be called before others write to c.
func Share(c net.Conn) {
	if c, ok := c.(*conn); ok {
		c.shared = true
	}
}

// CloseWrite lets a tunnel end one direction.
func (c *conn) CloseWrite() error {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		return t.CloseWrite()
	}
	return nil
}

// SyscallConn lets others ask the kernel about the socket.
func (c *conn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

func (c *conn) readHeader() {
	if !c.expect {
		return
	}
	if err := c.SetReadDeadline(time.Now().Add(c.l.cfg.HeaderTime)); err != nil {
		c.err = err
		return
	}
	remote, rest, err := readProxy(c.Conn)
	if err != nil {
		c.err = fmt.Errorf("read PROXY header of %s: %w", c.remote, err)
		return
	}
	if remote.IsValid() {
		c.remote = net.TCPAddrFromAddrPort(remote)
	}
	c.rest = rest
	c.err = c.SetReadDeadline(time.Time{})
}
