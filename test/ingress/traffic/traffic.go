// Package traffic is what goes through an Ingress in tests: a back end that
// answers, upgrades and streams, and clients that use it without a pause.
// Inputs are a way to connect and the certificates that are believed; outputs
// are how many requests were sent and what failed. It refuses to overlook a
// failure: there are no retries, and a body must be whole.
package traffic

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"poplin.dev/poplin/test/certificate"
)

// patience is how long an answer may take.
const patience = 20 * time.Second

// Dial connects to host:port, wherever a test has put that.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Client speaks one version of HTTP, and does not follow redirects.
func Client(dial Dial, roots *x509.CertPool, http2 bool) *http.Client {
	tr := &http.Transport{DialContext: dial, TLSClientConfig: &tls.Config{RootCAs: roots}, Protocols: new(http.Protocols), DisableCompression: true}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetHTTP2(http2)
	return &http.Client{Transport: tr, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Get returns status and body, or what went wrong.
func Get(c *http.Client, url string) string {
	resp, err := c.Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(resp.StatusCode, " ", string(b))
}

// Served is the fingerprint of the certificate that a new connection for a
// host gets, or what went wrong.
func Served(dial Dial, roots *x509.CertPool, host string) string {
	c := Client(dial, roots, false)
	defer c.CloseIdleConnections()
	resp, err := c.Get("https://" + host + "/")
	if err != nil {
		return err.Error()
	}
	_ = resp.Body.Close()
	return (&certificate.Certificate{Leaf: resp.TLS.PeerCertificates[0]}).Fingerprint()
}

// pause is between two requests of a client: a load that takes all there is of
// the processor would show how things fare without one.
const pause = 2 * time.Millisecond

// Load is clients that send one request after the other.
type Load struct {
	stop context.CancelFunc
	wg   sync.WaitGroup
	sent atomic.Int64

	mu     sync.Mutex
	failed int
	first  error
}

// Kind is what one client of a load does.
type Kind struct {
	URL   string
	HTTP2 bool
	Fresh bool // each request has a connection of its own
}

// Start begins a load with one client for each kind.
func Start(dial Dial, roots *x509.CertPool, kinds ...Kind) *Load {
	ctx, stop := context.WithCancel(context.Background())
	l := &Load{stop: stop}
	for _, k := range kinds {
		client := Client(dial, roots, k.HTTP2)
		client.Transport.(*http.Transport).DisableKeepAlives = k.Fresh
		l.wg.Go(func() {
			defer client.CloseIdleConnections()
			for ctx.Err() == nil {
				l.count(k, once(client, k.URL))
				time.Sleep(pause)
			}
		})
	}
	return l
}

// once does not read Get's text: a status other than 200 is a failure.
func once(c *http.Client, url string) error {
	resp, err := c.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch n, err := io.Copy(io.Discard, resp.Body); {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return errors.New(resp.Status)
	case n == 0:
		return errors.New("an empty answer")
	}
	return nil
}

func (l *Load) count(k Kind, err error) {
	l.sent.Add(1)
	if err == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.failed++
	if l.first == nil {
		l.first = fmt.Errorf("%s (HTTP/2 %v) at %s: %w", k.URL, k.HTTP2, time.Now().Format(time.TimeOnly), err)
	}
}

// Sent is how many requests there were so far.
func (l *Load) Sent() int64 { return l.sent.Load() }

// Stop ends the load; the error says how much of it failed.
func (l *Load) Stop() error {
	l.stop()
	l.wg.Wait()
	if l.failed > 0 {
		return fmt.Errorf("%d of %d requests failed, the first: %w", l.failed, l.Sent(), l.first)
	}
	return nil
}

// Stream is an open WebSocket or gRPC call.
type Stream struct {
	name  string
	w     io.Writer
	r     *bufio.Reader
	close func()
	// patient bounds the time of the next answer, or lifts the bound.
	patient func(on bool)
}

// WebSocket opens one by plain HTTP.
func WebSocket(ctx context.Context, dial Dial, host string) (*Stream, error) {
	c, err := dial(ctx, "tcp", net.JoinHostPort(host, "80"))
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGVzdA==\r\n\r\n", WebSocketPath, host)
	s := &Stream{
		name: "WebSocket", w: c, r: bufio.NewReader(c), close: func() { _ = c.Close() },
		patient: func(on bool) {
			var end time.Time
			if on {
				end = time.Now().Add(patience)
			}
			_ = c.SetReadDeadline(end) // fails on a connection that is closed, as the next read does
		},
	}
	s.patient(true)
	defer s.patient(false)
	resp, err := http.ReadResponse(s.r, nil) //nolint:bodyclose // a WebSocket's answer has no body
	if err == nil && resp.StatusCode != http.StatusSwitchingProtocols {
		err = errors.New(resp.Status)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open a WebSocket: %w", err)
	}
	return s, nil
}

// GRPC opens a call that streams both ways, over TLS.
func GRPC(ctx context.Context, dial Dial, roots *x509.CertPool, host string) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+host+GRPCPath, r)
	if err != nil {
		cancel()
		return nil, err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	client := Client(dial, roots, true)
	client.Timeout = 0
	resp, err := client.Do(req) //nolint:bodyclose // the stream reads it; cancel ends it
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("open a gRPC call: %w", err)
	}
	timer := time.AfterFunc(patience, cancel)
	timer.Stop()
	return &Stream{
		name: "gRPC", w: w, r: bufio.NewReader(resp.Body),
		close: func() { cancel(); client.CloseIdleConnections() },
		patient: func(on bool) {
			timer.Stop()
			if on {
				timer.Reset(patience)
			}
		},
	}, nil
}

// Alive sends a line and wants its answer.
func (s *Stream) Alive() error {
	s.patient(true)
	defer s.patient(false)
	if _, err := io.WriteString(s.w, "hello\n"); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	switch answer, err := s.r.ReadString('\n'); {
	case err != nil:
		return fmt.Errorf("%s: %w", s.name, err)
	case answer != "HELLO\n":
		return fmt.Errorf("%s: answered %q", s.name, answer)
	}
	return nil
}

// Close ends it.
func (s *Stream) Close() { s.close() }
