// Package ingress is poplin-ingress: it joins the API server, the compiler of
// routes and the proxy. Inputs are the administrator's settings; outputs are
// the listeners it serves, Events and status for the owners of Ingresses,
// metrics and an access log. It listens only once the first complete
// configuration is in force, and needs nothing of the node it runs on.
package ingress

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"time"

	"poplin.dev/poplin/daemon/ingress/ask"
	"poplin.dev/poplin/pkg/apply/proxy"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/ingress"
	kube "poplin.dev/poplin/pkg/kube/ingress"
	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/pkg/version"
)

// Config is the administrator's settings.
type Config struct {
	// HTTP and HTTPS are where clients come; an empty one is not served.
	HTTP, HTTPS string
	// Health and Metrics are where the kubelet and Prometheus come.
	Health, Metrics string
	Kubeconfig      string
	Namespaces      []string
	Compile         ingress.Config
	Proxy           proxy.Config
	// Front is the Service in front of the replicas, whose addresses become
	// the status of Ingresses; without it no status is written.
	Front cluster.ObjectName
	// Pod and Address are this replica's.
	Pod     string
	Address netip.Addr
	// AccessLog is "json", "off", or a format with nginx's variables.
	AccessLog string
	// Out takes the access log, Log the lines about the program.
	Out io.Writer
	Log *slog.Logger
}

// ballast is memory that is never touched, so it is never real. The collector
// waits until the heap has doubled; the proxy's own heap is so small that
// it would run hundreds of times a second without it.
const ballast = 32 << 20

// Run is the program's life. It ends without an error when ctx does.
func Run(ctx context.Context, cfg Config) error {
	if cfg.HTTP == "" && cfg.HTTPS == "" {
		return errors.New("listen: neither -http nor -https names an address")
	}
	if cfg.Health == cfg.Metrics && cfg.Health != "" {
		return fmt.Errorf("listen: -health and -metrics are both %s: give each a port of its own", cfg.Health)
	}
	if cfg.Front != (cluster.ObjectName{}) && !cfg.Address.IsValid() {
		return errors.New("learn this pod's address: set POD_IP from status.podIP, or leave -publish-service out")
	}
	access, err := newAccessLog(cfg.AccessLog, cfg.Out)
	if err != nil {
		return err
	}
	defer access.flush()
	weight := make([]byte, ballast)
	defer runtime.KeepAlive(weight)
	cfg.Log.Info("poplin-ingress starts", "version", version.Version, "commit", version.Commit)
	count := newMetrics(access)
	cfg.Proxy.Log, cfg.Proxy.Observer = cfg.Log, count
	engine := proxy.New(cfg.Proxy)
	count.proxy = engine

	r := newRoutes(cfg, engine, count)
	client, err := kube.New(kube.Config{
		Kubeconfig: cfg.Kubeconfig, Namespaces: cfg.Namespaces, Component: "poplin-ingress", Instance: cfg.Pod, Log: cfg.Log,
	}, r.reader())
	if err != nil {
		return err
	}
	p := newPublisher(cfg, client)
	r.secrets, r.publish = client.WantSecrets, p
	front := &listeners{cfg: cfg, engine: engine, after: r.Ready(), ready: loop.NewReady()}
	answers := &answers{cfg: cfg, exported: count.handler(), engine: engine, serving: front.Ready(), ready: loop.NewReady()}
	questions := ask.New(ask.Deps{
		Pod: cfg.Pod, Settings: ask.Settings{Compile: cfg.Compile, Namespaces: cfg.Namespaces}, Program: engine.Program, Log: cfg.Log,
	})
	// Stopped from last to first: while the proxy drains, its routes and
	// endpoints are still kept current.
	return loop.Group(ctx, cfg.Log, access, answers, questions, client, p, r, front)
}

// listeners serves clients, once there is something to serve.
type listeners struct {
	cfg    Config
	engine *proxy.Proxy
	after  <-chan struct{}
	ready  *loop.Ready
}

func (l *listeners) Ready() <-chan struct{} { return l.ready.Done() }
func (l *listeners) String() string         { return "proxy" }

// Ending implements loop.Slow: what is under way is finished first.
func (l *listeners) Ending() time.Duration { return l.cfg.Proxy.Withdraw + l.cfg.Proxy.Drain }

// Run implements loop.Task.
func (l *listeners) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-l.after:
	}
	plain, err := listen(l.cfg.HTTP)
	if err != nil {
		return err
	}
	secure, err := listen(l.cfg.HTTPS)
	if err != nil {
		return err
	}
	l.ready.Set()
	return l.engine.Serve(ctx, plain, secure)
}

func listen(address string) (net.Listener, error) {
	if address == "" {
		return nil, nil
	}
	// After a crash the old connections may linger: take the port at once.
	lc := net.ListenConfig{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 15 * time.Second, Count: 4}}
	l, err := lc.Listen(context.Background(), "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}
