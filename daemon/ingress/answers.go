package ingress

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy"
	"poplin.dev/poplin/pkg/loop"
)

// answers serves the kubelet and Prometheus, on ports of their own: no
// client's request reaches them.
type answers struct {
	cfg      Config
	exported http.Handler
	engine   *proxy.Proxy
	serving  <-chan struct{}
	ready    *loop.Ready
}

func (a *answers) Ready() <-chan struct{} { return a.ready.Done() }
func (a *answers) String() string         { return "answers" }

// Run implements loop.Task.
func (a *answers) Run(ctx context.Context) error {
	health, metrics := http.NewServeMux(), http.NewServeMux()
	health.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	health.HandleFunc("GET /readyz", a.readyz)
	metrics.Handle("GET /metrics", a.exported)
	failed := make(chan error, 2)
	// Whoever comes after finds the addresses free.
	var serving sync.WaitGroup
	defer serving.Wait()
	for address, h := range map[string]http.Handler{a.cfg.Health: health, a.cfg.Metrics: metrics} {
		l, err := listen(address)
		if err != nil {
			return err
		}
		if l == nil {
			continue
		}
		s := &http.Server{Handler: h, ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second}
		defer s.Close()
		serving.Go(func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("serve on %s: %w", address, err)
			}
		})
	}
	a.ready.Set()
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		return err
	}
}

// readyz is not ready again once the end was announced: so load balancers
// learn of it.
func (a *answers) readyz(w http.ResponseWriter, _ *http.Request) {
	select {
	case <-a.serving:
		if !a.engine.Draining() {
			return
		}
		http.Error(w, "draining", http.StatusServiceUnavailable)
	default:
		http.Error(w, "the first configuration is not complete", http.StatusServiceUnavailable)
	}
}
