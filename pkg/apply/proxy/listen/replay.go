package listen

import (
	"bytes"
	"crypto/tls"
	"net"
)

// replay is a connection of which something was read already.
type replay struct {
	net.Conn
	rest []byte
}

func (r *replay) Read(p []byte) (int, error) {
	if len(r.rest) > 0 {
		n := copy(p, r.rest)
		r.rest = r.rest[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}

// CloseWrite lets net/http end an answer that the client has yet to read.
func (r *replay) CloseWrite() error {
	if c, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// secureReplay tells net/http of TLS.
type secureReplay struct {
	replay
	tls *tls.Conn
}

func (r *secureReplay) ConnectionState() tls.ConnectionState { return r.tls.ConnectionState() }

// preface is how HTTP/2 begins (RFC 9113, section 3.4).
const preface = "PRI * HTTP/2.0\r\n"

// Replay gives back a connection of which rest was read already.
func Replay(c net.Conn, rest []byte) net.Conn {
	if bytes.HasPrefix(rest, []byte(preface)) {
		Share(c)
	}
	if t, ok := c.(*tls.Conn); ok {
		return &secureReplay{replay{c, rest}, t}
	}
	return &replay{c, rest}
}
