// Package reach connects to the API server by whichever of its addresses
// answers. Inputs are the addresses in order of preference; output is a
// connection. It refuses to resolve the server's TLS name or to use a proxy:
// both may depend on the network that this node is about to make.
package reach

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dialTimeout = 3 * time.Second
	// aliveTimeout is how long a silent or unacknowledged connection is kept.
	// HTTP/2's own health check would take 45 s.
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

// Dial connects to the first candidate that answers. The address is the TLS
// server's name, which nothing needs to resolve.
func (e *Endpoints) Dial(ctx context.Context, network, _ string) (net.Conn, error) {
	d := net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: aliveTimeout / 3, Interval: aliveTimeout / 3, Count: 2},
		Control:         boundSilence,
	}
	var errs []error
	for _, address := range e.candidates() {
		conn, err := d.DialContext(ctx, network, address)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		e.dialed(address, err)
		e.tried(address, err)
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
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
	e.used = address
	if err == nil {
		delete(e.failed, address)
		return
	}
	e.tries++
	e.failed[address] = e.tries
}

// InUse is the endpoint of the latest connection.
func (e *Endpoints) InUse() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.used
}

// Wrap has requests that fail on a connection, such as by its certificate,
// count against the endpoint: the next connection goes elsewhere.
func (e *Endpoints) Wrap(rt http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		resp, err := rt.RoundTrip(r)
		if err != nil && r.Context().Err() == nil {
			e.tried(e.InUse(), err)
		}
		return resp, err
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Replace tells of the endpoints that the cluster has now.
func (e *Endpoints) Replace(found []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.found = found
	maps.DeleteFunc(e.failed, func(s string, _ int) bool {
		return !slices.Contains(slices.Concat(e.preferred, found, e.last), s)
	})
}
