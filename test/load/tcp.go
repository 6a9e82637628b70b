package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pause is between two short connections.
	pause = 20 * time.Millisecond
	// chunk is what the long connection sends at once, chunkPause what it
	// waits for then.
	chunk      = 8 << 10
	chunkPause = 5 * time.Millisecond
	// patience is how long a connection may make no progress: long enough for
	// TCP to send again what was lost, several times. Where that was needed
	// the Result says so.
	patience = 20 * time.Second
)

func (l *Load) dial() (c *net.TCPConn, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err = l.from(func() error {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", l.to.String())
		if err == nil {
			c = conn.(*net.TCPConn)
		}
		return err
	})
	return c, err
}

// connect makes short connections: a handshake, a few bytes each way, an end;
// and the same without a handshake.
func (l *Load) connect() {
	for l.wait(pause) {
		failure := l.ask()
		again, err := l.exchange()
		err = errors.Join(failure, err)
		l.mu.Lock()
		l.result.Connections++
		l.result.SentAgain += again
		if err != nil {
			l.fail("short connection", err)
		}
		l.mu.Unlock()
	}
}

func (l *Load) exchange() (again int, err error) {
	c, err := l.dial()
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := echoed(c, packet(l.id, 0)); err != nil {
		return 0, err
	}
	return sentAgain(c), c.CloseWrite()
}

// stream keeps one connection busy both ways.
func (l *Load) stream() {
	c, err := l.dial()
	if err == nil {
		defer c.Close()
		data := bytes.Repeat(packet(l.id, 1), chunk/packetSize)
		for err == nil && l.wait(chunkPause) {
			if err = echoed(c, data); err == nil {
				l.mu.Lock()
				l.result.Streamed += chunk
				l.mu.Unlock()
			}
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.fail("long connection", err)
		return
	}
	l.result.SentAgain += sentAgain(c)
}

// echoed sends data and wants it back.
func echoed(c *net.TCPConn, data []byte) error {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := c.Write(data); err != nil {
		return err
	}
	answer := make([]byte, len(data))
	if _, err := io.ReadFull(c, answer); err != nil {
		return err
	}
	if !bytes.Equal(answer, data) {
		return errors.New("other bytes came back than were sent")
	}
	return nil
}

// sentAgain is how many segments the kernel has sent more than once.
func sentAgain(c *net.TCPConn) (n int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			n = int(info.Total_retrans)
		}
	})
	return n
}

// wait reports false when the load ends.
func (l *Load) wait(d time.Duration) bool {
	select {
	case <-l.ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// fail is called with mu held.
func (l *Load) fail(what string, err error) {
	l.result.Failed = append(l.result.Failed, fmt.Sprintf("%s at %v: %v", what, time.Since(l.begun).Round(time.Millisecond), err))
}
