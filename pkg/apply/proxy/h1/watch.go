package h1

import (
	"context"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/proxy/link"
)

// watchTime is how often clients whose answer takes long are looked at: one
// that has left needs none.
const watchTime = 500 * time.Millisecond

// Watch looks for clients that have left, until ctx ends.
func (s *Server) Watch(ctx context.Context) {
	tick := time.NewTicker(watchTime)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.each(func(c *conn) { c.look(now) })
		}
	}
}

// attend gives the connection to an endpoint to whoever looks; nil takes it
// away again.
func (c *conn) attend(l *link.Link, now time.Time) {
	c.mu.Lock()
	c.link, c.since = l, now
	c.mu.Unlock()
}

func (c *conn) look(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != nil && c.raw != nil && now.Sub(c.since) >= watchTime && c.left() {
		c.x.cut(clientLeft)
		c.link.Interrupt()
	}
}

// left reports whether the client has closed its side.
func (c *conn) left() bool {
	gone := false
	err := c.raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		gone = err == nil && n == 1 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return err != nil || gone
}
