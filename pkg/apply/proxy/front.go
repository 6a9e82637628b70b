package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/listen"
)

// front is one socket, and the server on net/http behind it. That server has
// the connections that the other engine hands over, or all of them.
type front struct {
	*http.Server
	listener *listen.Listener
	handed   *queue
}

// run accepts connections until the socket is closed.
func (p *Proxy) run(base context.Context, f front) error {
	config := f.TLSConfig.Clone() // net/http makes changes of its own
	switch {
	case !p.NetHTTP:
	case config != nil:
		return f.ServeTLS(f.listener, "", "")
	default:
		return f.Serve(f.listener)
	}
	go func() { _ = f.Serve(f.handed) }() // it ends when it is closed
	for {
		c, err := f.listener.Accept()
		if err != nil {
			return err
		}
		go p.connection(base, f.handed, c, config)
	}
}

// connection finds the engine for one connection.
func (p *Proxy) connection(base context.Context, full *queue, c net.Conn, config *tls.Config) {
	defer func() {
		if err := recover(); err != nil {
			p.Log.Error("a connection's engine failed", "error", err, "stack", string(debug.Stack()))
			c.Close()
		}
	}()
	if config != nil {
		client := c.RemoteAddr() // a PROXY header has a time of its own
		t := tls.Server(c, config)
		_ = c.SetReadDeadline(time.Now().Add(p.HeaderTime)) // what fails is the handshake
		if err := t.HandshakeContext(base); err != nil {
			p.Log.Debug("TLS handshake failed", "client", client.String(), "error", err)
			c.Close()
			return
		}
		_ = c.SetReadDeadline(time.Time{}) // what fails is the next read
		if t.ConnectionState().NegotiatedProtocol == "h2" {
			listen.Share(t.NetConn())
			full.put(t)
			return
		}
		c = t
	}
	if over := p.quick.Serve(base, c, config != nil); over != nil {
		full.put(over)
	}
}

// queue is a net.Listener of connections that were accepted elsewhere.
type queue struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newQueue(a net.Addr) *queue {
	return &queue{addr: a, conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (q *queue) put(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.closed:
		c.Close()
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.closed) })
	return nil
}

func (q *queue) Addr() net.Addr { return q.addr }
