package engine

import (
	"net/netip"
	"strconv"
	"strings"
)

// Caller is who a request comes from.
type Caller struct {
	// Peer is who is connected, Client whom it speaks for.
	Peer, Client netip.Addr
	// Trusted is Peer's word; Secure says that the client uses HTTPS.
	Trusted, Secure bool
	name            string // of Peer
}

// Caller is the one at the other end of a connection.
func (s *Shared) Caller(remote string, secure bool) Caller {
	at, _ := netip.ParseAddrPort(remote)
	peer := at.Addr().Unmap().WithZone("")
	return Caller{Peer: peer, Client: peer, Trusted: Within(s.Trusted, peer), Secure: secure, name: peer.String()}
}

// Hear takes a trusted proxy's word: the client is the last address in
// X-Forwarded-For that is no trusted proxy's, as far as trust reaches.
func (s *Shared) Hear(c *Caller, said Words) {
	if !c.Trusted {
		return
	}
	if said.Proto != "" {
		c.Secure = said.Proto == "https"
	}
	for rest, last := said.For, ""; ; {
		i := strings.LastIndexByte(rest, ',')
		last = rest[i+1:]
		a, err := netip.ParseAddr(strings.TrimSpace(last))
		if err != nil {
			return
		}
		c.Client = a.Unmap().WithZone("")
		if i < 0 || !Within(s.Trusted, c.Client) {
			return
		}
		rest = rest[:i]
	}
}

// Words are what back ends are told of the caller, or what a request came
// with under the same names.
type Words struct {
	For, Host, Proto, Port, RealIP string
}

// Words says whom a request for host comes from. A trusted proxy's words are
// kept and added to; anybody else's are not heard.
func (c *Caller) Words(host string, said Words) Words {
	w := Words{For: c.name, Host: host, Proto: "http", Port: "80", RealIP: c.name}
	if c.Secure {
		w.Proto, w.Port = "https", "443"
	}
	if c.Client != c.Peer {
		w.RealIP = c.Client.String()
	}
	if !c.Trusted {
		return w
	}
	if said.For != "" {
		w.For = said.For + ", " + w.For
	}
	if said.Host != "" {
		w.Host = said.Host
	}
	if p, err := strconv.ParseUint(said.Port, 10, 16); err == nil {
		w.Port = strconv.FormatUint(p, 10)
	}
	return w
}
