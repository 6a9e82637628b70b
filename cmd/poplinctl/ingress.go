package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"poplin.dev/poplin/daemon/ingress/view"
	"poplin.dev/poplin/pkg/ingress"
	"poplin.dev/poplin/pkg/ingress/migrate"
	kube "poplin.dev/poplin/pkg/kube/ingress"
)

// ingresses shows what becomes of Ingresses.
func ingresses(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] != "status" && args[0] != "migrate" {
		return fmt.Errorf("write poplinctl ingress status or poplinctl ingress migrate")
	}
	command, controller := args[0], ingress.Controller
	if command == "migrate" {
		controller = "k8s.io/ingress-nginx"
	}
	f := flag.NewFlagSet("poplinctl ingress "+command, flag.ContinueOnError)
	kubeconfig := f.String("kubeconfig", defaultKubeconfig(), "kubeconfig `file` for the cluster")
	namespaces := f.String("namespaces", "", "`list` of namespaces to look at; none is all")
	from := f.String("controller", controller, "`name` of the controller whose IngressClasses are looked at")
	output := outputFlag(f)
	timeout := f.Duration("timeout", 20*time.Second, "how long to wait for the API server")
	if err := parse(f, args[1:], output); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	k := kube.Config{Kubeconfig: *kubeconfig, Component: "poplinctl", Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	if *namespaces != "" {
		k.Namespaces = strings.Split(*namespaces, ",")
	}
	v, err := view.Read(ctx, k, ingress.Config{Controllers: []string{*from}})
	if err != nil {
		return err
	}
	if command == "migrate" {
		reports := migrate.Reports(v.Ingresses, v.Result)
		return write(os.Stdout, *output, reports, func(w io.Writer) error { return migrate.Text(w, *from, reports) })
	}
	list := v.Statuses()
	return write(os.Stdout, *output, list, func(w io.Writer) error { return view.Text(w, list) })
}
