// Package reach connects to the API server by whichever of its addresses
// answers. Inputs are the addresses in order of preference; output is a
// connection. It refuses to resolve the server's TLS name or to use a proxy:
// both may depend on the network that this node is about to make.
package reach

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dialTimeout = 3 * time.Second
	// aliveTimeout is how long a connection is kept on which nothing comes
	// back, before it is asked, and then until it is given up.
	aliveTimeout = 15 * time.Second
)

// Endpoints finds an API server that answers, without Services: they may be
// what this node is waiting for.
type Endpoints struct {
	dialed func(endpoint string, err error)

	mu sync.Mutex
	// preferred are the configured ones, in their order; then come those
	// that were found, then the Service address of the environment.
	preferred, found, last []string
	// failed holds, for each endpoint that does not work, when it was last
	// tried (a count, not a time: clocks jump).
	failed map[string]int
	tries  int
	used   string
}

// New takes https URLs in order of preference, then the endpoints (host:port)
// found by an earlier process, then the Service's address, if any. dialed is
// told of every attempt.
func New(urls, found []string, service string, dialed func(endpoint string, err error)) (*Endpoints, error) {
	e := &Endpoints{dialed: dialed, found: found, failed: map[string]int{}}
	for _, s := range urls {
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" {
			return nil, fmt.Errorf("apiServer.endpoints: %q is no https URL", s)
		}
		e.preferred = append(e.preferred, net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")))
	}
	if service != "" {
		e.last = []string{service}
	}
	if len(e.candidates()) == 0 {
		return nil, errors.New("find the API server: set apiServer.endpoints in config.yaml, or KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT")
	}
	return e, nil
}

// candidates are all endpoints, best first: those that did not fail in order
// of preference, then those whose failure is longest ago.
func (e *Endpoints) candidates() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []string
	for _, s := range slices.Concat(e.preferred, e.found, e.last) {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	slices.SortStableFunc(list, func(a, b string) int { return e.failed[a] - e.failed[b] })
	return list
}

// Transport sends requests to whichever endpoint answers. The address in a
// request's URL is only the name in the server's certificate, which nothing
// needs to resolve. authorities is the file of its CA's certificates, read
// again for every connection, because it is renewed now and then.
func (e *Endpoints) Transport(authorities string) *http.Transport {
	return &http.Transport{
		DialTLSContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			name, _, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			roots, err := readRoots(authorities)
			if err != nil {
				return nil, err
			}
			return e.dial(ctx, network, &tls.Config{
				ServerName: name, RootCAs: roots, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12,
			})
		},
		ForceAttemptHTTP2: true,
		// A server whose kernel still acknowledges, but which does not answer.
		HTTP2:           &http.HTTP2Config{SendPingTimeout: aliveTimeout, PingTimeout: aliveTimeout},
		IdleConnTimeout: 2 * time.Minute,
	}
}

func readRoots(path string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the API server's authority: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read the API server's authority: %s holds no certificate", path)
	}
	return roots, nil
}

// dial connects to the first candidate that answers with the certificate it
// should have.
func (e *Endpoints) dial(ctx context.Context, network string, config *tls.Config) (net.Conn, error) {
	d := tls.Dialer{Config: config, NetDialer: &net.Dialer{
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: aliveTimeout / 3, Interval: aliveTimeout / 3, Count: 2},
		Control:         boundSilence,
	}}
	var errs []error
	for _, address := range e.candidates() {
		attempt, cancel := context.WithTimeout(ctx, dialTimeout)
		conn, err := d.DialContext(attempt, network, address)
		cancel()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		e.dialed(address, err)
		e.tried(address, err)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", address, err))
	}
	return nil, fmt.Errorf("no endpoint of the API server answers (apiServer.endpoints in config.yaml can name more): %w", errors.Join(errs...))
}

// boundSilence covers what keep-alives do not: a connection with data under
// way (tcp(7), TCP_USER_TIMEOUT).
func boundSilence(_, _ string, c syscall.RawConn) error {
	var set error
	err := c.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(aliveTimeout.Milliseconds()))
	})
	return errors.Join(err, set)
}

func (e *Endpoints) tried(address string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err == nil {
		e.used = address
		delete(e.failed, address)
		return
	}
	e.tries++
	e.failed[address] = e.tries
}

// InUse is the endpoint of the latest connection; empty before the first.
func (e *Endpoints) InUse() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.used
}

// Replace tells of the endpoints that the cluster has now.
func (e *Endpoints) Replace(found []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.found = found
	maps.DeleteFunc(e.failed, func(s string, _ int) bool {
		return !slices.Contains(slices.Concat(e.preferred, found, e.last), s)
	})
}
