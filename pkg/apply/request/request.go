// Package request makes one request as a client would: a TCP connection, over it
// HTTP where a URL says so, or a datagram. Input is where to, and from which port;
// output is how it ended. It comes from the calling thread's network namespace.
// It refuses to send anything twice, and to judge a certificate.
package request

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
)

// patience is with a connection, whose first packet the kernel sends again
// after a second, and with an answer.
const patience = 1500 * time.Millisecond

// Make makes it.
func Make(ctx context.Context, r facts.Request) facts.Outcome {
	o := facts.Outcome{Request: r}
	if r.Proto == service.SCTP {
		o.Unsent, o.Error = true, "requests by SCTP are not made"
		return o
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// The kernel chooses the address, as it does for any client.
	local := netip.AddrPortFrom(netip.IPv6Unspecified(), r.Port)
	if r.To.Addr().Is4() {
		local = netip.AddrPortFrom(netip.IPv4Unspecified(), r.Port)
	}
	network, d := "tcp", net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(local), Control: reuse}
	if r.Proto == service.UDP {
		network, d.LocalAddr = "udp", net.UDPAddrFromAddrPort(local)
	}
	c, err := d.DialContext(ctx, network, r.To.String())
	if err == nil {
		defer func() { _ = c.Close() }()
		deadline, _ := ctx.Deadline()
		err = c.SetDeadline(deadline)
	}
	switch {
	case err != nil:
	case r.Name != "":
		err = look(ctx, c, r)
		o.Answered = err == nil
	case r.Proto == service.UDP:
		err = datagram(c)
		o.Answered = err == nil
	default:
		o.Answered = true
		if r.URL != "" {
			err = ask(ctx, c, r.URL, &o)
		}
	}
	if err != nil {
		o.Error = err.Error()
	}
	absent := &net.DNSError{}
	o.Refused = o.Refused || errors.Is(err, unix.ECONNREFUSED) || errors.As(err, &absent) && absent.IsNotFound
	o.Unsent = errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EPERM)
	return o
}

func reuse(_, _ string, c syscall.RawConn) (err error) {
	errControl := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	return errors.Join(errControl, err)
}

// datagram sends an empty one: that nobody answers it says nothing, that the
// port is refused does.
func datagram(c net.Conn) error {
	if _, err := c.Write(nil); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// look asks a name server, over a connection that is used once, for addresses of
// the family in which it is asked.
func look(ctx context.Context, c net.Conn, r facts.Request) error {
	once := make(chan net.Conn, 1)
	once <- c
	resolver := net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		select {
		case c := <-once:
			return c, nil
		default:
			return nil, errors.New("one question was not answered")
		}
	}}
	family := "ip6"
	if r.To.Addr().Is4() {
		family = "ip4"
	}
	_, err := resolver.LookupNetIP(ctx, family, r.Name)
	return err
}

// ask asks for a URL over a connection. A server that ends it without an answer
// to HTTP has been reached all the same.
func ask(ctx context.Context, c net.Conn, text string, o *facts.Outcome) error {
	u, err := url.Parse(text)
	if err != nil {
		return err
	}
	if u.Scheme == "https" {
		// What is shown is what is asked for; it is compared elsewhere.
		secure := tls.Client(c, &tls.Config{ServerName: u.Hostname(), InsecureSkipVerify: true})
		if err := secure.HandshakeContext(ctx); err != nil {
			o.Refused = !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, context.DeadlineExceeded)
			return err
		}
		if shown := secure.ConnectionState().PeerCertificates; len(shown) > 0 {
			sum := sha256.Sum256(shown[0].Raw)
			o.Certificate = hex.EncodeToString(sum[:])
		}
		c = secure
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, text, nil)
	if err != nil {
		return err
	}
	r.Close = true
	r.Header.Set("User-Agent", "poplinctl-trace")
	if err := r.Write(c); err != nil {
		return err
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), r)
	if err != nil {
		return err
	}
	o.Status = answer.StatusCode
	return answer.Body.Close()
}
