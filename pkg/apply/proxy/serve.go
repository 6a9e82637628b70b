package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/listen"
)

const (
	// h2Streams is what ingress-nginx allows on one connection.
	h2Streams = 128
	// h2Buffer bounds what one connection may have in flight towards us.
	h2Buffer = 1 << 20
	// settle is how long connections without a request may stay once nobody
	// can connect any more.
	settle = time.Second
)

// Serve answers on the two sockets, either of which may be nil, until ctx
// ends; then it drains. An error is of a socket that fails.
func (p *Proxy) Serve(ctx context.Context, plain, secure net.Listener) error {
	base, abort := context.WithCancel(context.WithoutCancel(ctx))
	defer abort()
	var fronts []front
	failed := make(chan error, 2)
	for _, l := range []net.Listener{plain, secure} {
		if l == nil {
			continue
		}
		limited, err := listen.New(l, listen.Config{
			Max: p.MaxConnections, Stall: p.WriteTime, Opened: p.Observer.Connections,
			ProxyProtocol: p.ProxyProtocol, Trusted: p.Trusted, HeaderTime: p.HeaderTime,
		})
		if err != nil {
			return err
		}
		f := front{p.server(base, l == secure), limited, newQueue(l.Addr())}
		fronts = append(fronts, f)
		go func() {
			if err := p.run(base, f); !errors.Is(err, http.ErrServerClosed) && !(p.Draining() && errors.Is(err, net.ErrClosed)) {
				failed <- fmt.Errorf("serve on %s: %w", l.Addr(), err)
			}
		}()
	}
	go p.quick.Watch(base)
	var err error
	select {
	case <-ctx.Done():
		p.drain(base, fronts)
	case err = <-failed:
	}
	abort()
	for _, f := range fronts {
		f.Close()
		f.listener.Close()
	}
	p.quick.Close()
	p.CloseIdle()
	return err
}

// drain ends without failing a request. First every answer asks its client to
// come back on another connection, while load balancers learn that this
// replica leaves; only then do the listeners close. Streams get the drain
// time. http.Server.Shutdown does not wait for tunnels, so requests are
// counted; and it drops a request that it reads while it begins, so it is
// told only when connections had time to bring theirs.
func (p *Proxy) drain(base context.Context, fronts []front) {
	p.Leave()
	p.Log.Info("draining", "withdraw", p.Withdraw, "drain", p.Drain, "requests", p.Active())
	wait(base, p.Withdraw)
	ctx, cancel := context.WithTimeout(base, p.Drain)
	defer cancel()
	open := func() (n int) {
		for _, f := range fronts {
			n += f.listener.Open()
		}
		return n
	}
	for _, f := range fronts {
		f.listener.Close()
	}
	for end := time.Now().Add(settle); open() > p.Active() && time.Now().Before(end) && ctx.Err() == nil; {
		wait(ctx, 10*time.Millisecond)
	}
	var wg sync.WaitGroup
	for _, f := range fronts {
		wg.Go(func() { _ = f.Shutdown(ctx) }) // what did not end in time is cut below
	}
	for (p.Active() > 0 || p.quick.Open() > 0) && ctx.Err() == nil {
		p.quick.CloseIdle()
		wait(ctx, 10*time.Millisecond)
	}
	wg.Wait()
	if n := p.Active(); n > 0 {
		p.Log.Warn("drain time is over", "requests", n)
	}
}

func (p *Proxy) server(base context.Context, secure bool) *http.Server {
	s := &http.Server{
		Handler:           p,
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: p.HeaderTime,
		IdleTimeout:       p.IdleTime,
		MaxHeaderBytes:    p.HeaderBytes,
		// Clients' mistakes, a line each.
		ErrorLog:  log.New(debugWriter{p.Log}, "", 0),
		Protocols: new(http.Protocols),
		HTTP2:     &http.HTTP2Config{MaxConcurrentStreams: h2Streams, MaxReceiveBufferPerConnection: h2Buffer},
		// OPTIONS * is refused like every request without a path.
		DisableGeneralOptionsHandler: true,
	}
	s.Protocols.SetHTTP1(true)
	if secure {
		s.Protocols.SetHTTP2(true)
		s.TLSConfig = p.tlsConfig()
	} else {
		// By prior knowledge only: an upgrade to h2c would be a tunnel past
		// every rule.
		s.Protocols.SetUnencryptedHTTP2(true)
	}
	return s
}

func (p *Proxy) tlsConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		// Records of 16 kB from the first on: small ones would show a
		// page's first bytes sooner, and cost a system call each.
		DynamicRecordSizingDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
			if c := p.Program().Covers(name); c != nil {
				return &c.Certificate, nil
			}
			// Neither certificate nor error: the alert is unrecognized_name.
			return nil, nil
		},
	}
}

type debugWriter struct{ log *slog.Logger }

func (w debugWriter) Write(b []byte) (int, error) {
	w.log.Debug(strings.TrimSpace(string(b)))
	return len(b), nil
}
