// Package h1 forwards HTTP/1.1 between a client's connection and an
// endpoint's, a goroutine for each client. Inputs are accepted connections,
// encrypted or not, and the table in force; output is answers, most of them
// with four system calls and the message never copied but by the kernel. It
// does what most requests need. A request that needs more, such as an upgrade,
// another protocol or a guard that asks other servers, it gives back with its
// connection, before the first byte of a body was read. It refuses whatever
// package wire refuses.
package h1

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/engine"
	"poplin.dev/poplin/pkg/apply/proxy/listen"
)

// Server is the engine.
type Server struct {
	*engine.Shared
	mu    sync.Mutex
	conns map[*conn]struct{}
}

// New makes a server.
func New(s *engine.Shared) *Server {
	return &Server{Shared: s, conns: map[*conn]struct{}{}}
}

// Serve forwards a connection's requests until it ends, and closes it; or
// until one comes that is not for this engine. Then it returns the
// connection, which is to be read from that request's first byte on.
func (s *Server) Serve(ctx context.Context, nc net.Conn, secure bool) net.Conn {
	c := &conn{Conn: nc, s: s, ctx: ctx, buf: make([]byte, smallBuffer)}
	c.x.c = c
	c.caller = s.Caller(nc.RemoteAddr().String(), secure)
	if raw, ok := socket(nc).(syscall.Conn); ok {
		c.raw, _ = raw.SyscallConn() // without it nobody watches whether the client leaves
	}
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	over := false
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		if !over {
			c.Close()
		}
	}()
	if over = c.serve(); !over {
		return nil
	}
	_ = c.SetReadDeadline(time.Time{}) // what fails is the next read
	return listen.Replay(nc, c.buf[c.r:c.w])
}

// socket is what lies below TLS.
func socket(c net.Conn) net.Conn {
	if t, ok := c.(interface{ NetConn() net.Conn }); ok {
		return t.NetConn()
	}
	return c
}

// Open is how many connections there are.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// CloseIdle ends the connections on which no request is under way.
func (s *Server) CloseIdle() { s.each((*conn).leave) }

// Close ends all of them.
func (s *Server) Close() { s.each(func(c *conn) { c.Conn.Close() }) }

func (s *Server) each(do func(*conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		do(c)
	}
}
