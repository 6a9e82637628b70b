// Command poplin-ingress is an Ingress controller and its proxy in one.
// docs/ingress.md says what it does with an Ingress.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	daemon "poplin.dev/poplin/daemon/ingress"
	"poplin.dev/poplin/pkg/ingress"
	"poplin.dev/poplin/pkg/version"
)

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "poplin-ingress:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	cfg := daemon.Config{Pod: os.Getenv("POD_NAME"), Out: os.Stdout}
	if len(args) > 0 && args[0] == "query" {
		return query(args[1:], cfg.Pod, cfg.Out)
	}
	level := slog.LevelInfo
	f := flag.NewFlagSet("poplin-ingress", flag.ContinueOnError)
	show := f.Bool("version", false, "say which build this is")
	f.StringVar(&cfg.HTTP, "http", ":8080", "`address` for HTTP; empty is off")
	f.StringVar(&cfg.HTTPS, "https", ":8443", "`address` for HTTPS; empty is off")
	f.StringVar(&cfg.Health, "health", ":9411", "`address` of /healthz and /readyz")
	f.StringVar(&cfg.Metrics, "metrics", ":9410", "`address` of /metrics; empty is off")
	f.StringVar(&cfg.Kubeconfig, "kubeconfig", "", "kubeconfig `file`, for development outside a pod")
	f.StringVar(&cfg.AccessLog, "access-log", "json", "json, off, or a `format` with nginx's variables")
	f.TextVar(&level, "log-level", level, "debug, info, warn or error")
	f.Func("namespaces", "`list` of namespaces to serve; none is all", list(func(s string) error { cfg.Namespaces = append(cfg.Namespaces, s); return nil }))
	f.Func("publish-service", "`NAMESPACE/NAME` of the Service in front, whose addresses become the status of Ingresses", object(&cfg.Front))
	cfg.Compile.Controllers = []string{ingress.Controller}
	f.Func("also-serve", "`list` of other controllers' names, such as k8s.io/ingress-nginx, whose classes are served too", list(func(s string) error {
		cfg.Compile.Controllers = append(cfg.Compile.Controllers, s)
		return nil
	}))
	f.Func("default-backend", "`NAMESPACE/NAME:PORT` of the Service for what no Ingress takes", backend(&cfg.Compile.DefaultBackend))
	f.Func("default-certificate", "`NAMESPACE/NAME` of the Secret for hosts without a certificate", object(&cfg.Compile.DefaultCertificate))
	f.BoolVar(&cfg.Compile.OneNamespacePerHost, "one-namespace-per-host", false, "give a host to the namespace of its oldest Ingress")
	f.Func("trusted-proxies", "`list` of address ranges whose X-Forwarded-* and PROXY headers are believed", list(func(s string) error {
		p, err := netip.ParsePrefix(s)
		cfg.Proxy.Trusted = append(cfg.Proxy.Trusted, p.Masked())
		return err
	}))
	f.BoolVar(&cfg.Proxy.ProxyProtocol, "proxy-protocol", false, "want the PROXY protocol of trusted proxies")
	f.IntVar(&cfg.Proxy.HTTPSPort, "https-port", 443, "`port` that clients reach HTTPS at, for redirects")
	f.IntVar(&cfg.Proxy.MaxConnections, "max-connections", 20000, "`number` of clients' connections on each of HTTP and HTTPS")
	f.BoolVar(&cfg.Proxy.NoEncodedSlash, "refuse-encoded-slash", false, "answer 400 to paths with %2F or %5C")
	f.BoolVar(&cfg.Proxy.NetHTTP, "net-http", false, "serve HTTP/1.1 with Go's net/http alone: slower, and less strict about what it reads")
	f.DurationVar(&cfg.Proxy.Withdraw, "withdraw", 5*time.Second, "`time` to go on taking connections after SIGTERM, until load balancers know")
	f.DurationVar(&cfg.Proxy.Drain, "drain", 30*time.Second, "`time` for requests and streams under way to end after that")
	if err := f.Parse(args); err != nil {
		return err
	}
	switch {
	case f.NArg() > 0:
		return fmt.Errorf("unknown argument %q", f.Arg(0))
	case *show:
		fmt.Println("poplin-ingress", version.String())
		return nil
	}
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if ip := os.Getenv("POD_IP"); ip != "" {
		a, err := netip.ParseAddr(ip)
		if err != nil {
			return fmt.Errorf("read POD_IP: %q is no IP address", ip)
		}
		cfg.Address = a
	}
	return daemon.Run(ctx, cfg)
}
