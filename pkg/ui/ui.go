// Package ui serves a person, on the machine in front of them, a page with the
// cluster's network as a graph and traces drawn on it. Inputs are who makes the
// graph and who traces; outputs are the page, and both as JSON. It refuses to
// listen to other machines, to answer without the key that only the one who
// started it was told, or under a name that is not this machine's own, and to
// change anything.
package ui

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	"poplin.dev/poplin/pkg/trace/way"
	"poplin.dev/poplin/pkg/ui/graph"
)

// Source is where the page's content comes from. Both are called by one
// request at a time.
type Source struct {
	Graph func(context.Context) (graph.Graph, error)
	// Trace follows a request from one end to the other, as people write
	// them; family is 4, 6 or, for both, 0.
	Trace func(ctx context.Context, from, to string, family int) (way.Report, error)
}

// Listen opens the door: address is 127.0.0.1 or ::1, and port 0 is a free one.
func Listen(address string, port int) (net.Listener, error) {
	a, err := netip.ParseAddr(address)
	if err != nil || !a.IsLoopback() {
		return nil, fmt.Errorf("-address %q: the page is for this machine alone: write 127.0.0.1 or ::1, and to see it from another one use ssh -L", address)
	}
	if port < 0 || port > 65535 {
		return nil, fmt.Errorf("-port %d: write one of 1..65535, or 0 for a free one", port)
	}
	l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("listen: %w; -port 0 takes a free one", err)
	}
	return l, nil
}

// Serve answers until ctx ends. say is told the address of the page, with the
// key.
func Serve(ctx context.Context, l net.Listener, s Source, say func(url string)) error {
	key := rand.Text()
	server := &http.Server{
		Handler: Handler(s, key), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	// The part behind # is not sent to anybody, and so in nobody's log.
	say(fmt.Sprintf("http://%s/#key=%s", l.Addr(), key))
	select {
	case err := <-ended:
		return fmt.Errorf("serve the page: %w", err)
	case <-ctx.Done():
	}
	rest, stop := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer stop()
	if err := server.Shutdown(rest); err != nil {
		err = server.Close() // somebody holds a connection open
		return cmp.Or(err, ignoreClosed(<-ended))
	}
	return ignoreClosed(<-ended)
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
