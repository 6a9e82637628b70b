// Command backend is the pod behind an Ingress in tests on a real cluster. It
// answers with its name, takes upgrades and streams, and ends as a server
// should: it serves on until load balancers know that it goes, and closes
// nothing that is under way.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"poplin.dev/poplin/test/ingress/traffic"
)

const (
	withdraw = 3 * time.Second
	drain    = 10 * time.Second
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "backend:", err)
		os.Exit(1)
	}
}

func run() error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	s := &http.Server{Addr: ":8080", Handler: traffic.Backend(name), Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	failed := make(chan error, 1)
	go func() { failed <- s.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	time.Sleep(withdraw)
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	return s.Shutdown(ctx)
}
