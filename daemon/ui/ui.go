// Package ui shows a cluster's network in a browser. Inputs are a kubeconfig and
// where to listen; output is the page of pkg/ui, with what the API server has
// at that moment and the traces of daemon/trace. What a person may not read is
// named on the page. It refuses to read Secrets, and to write.
package ui

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"poplin.dev/poplin/daemon/trace"
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/kube"
	"poplin.dev/poplin/pkg/kube/person"
	"poplin.dev/poplin/pkg/kube/policies"
	"poplin.dev/poplin/pkg/trace/way"
	"poplin.dev/poplin/pkg/ui"
	"poplin.dev/poplin/pkg/ui/graph"
)

// Config is what a page is about, and where it is.
type Config struct {
	Kubeconfig string
	// System is the namespace of Poplin's pods.
	System string
	// Address is 127.0.0.1 or ::1; Port 0 is a free one.
	Address string
	Port    int
	// Say is told the page's address.
	Say func(url string)
}

// viewTime is how long policies are waited for.
const viewTime = 3 * time.Second

// reader reads what the page shows.
type reader struct {
	api      *person.Client
	kube     *kube.Client
	policies *policies.View
}

// Run shows it until ctx ends.
func Run(ctx context.Context, conf Config) error {
	l, err := ui.Listen(conf.Address, conf.Port)
	if err != nil {
		return err
	}
	r, err := newReader(conf.Kubeconfig)
	if err != nil {
		return errors.Join(err, l.Close())
	}
	ctx, stop := context.WithCancel(ctx)
	var following sync.WaitGroup
	defer following.Wait()
	defer stop()
	following.Go(func() { _ = r.policies.Run(ctx) }) // ends without an error when told to
	return ui.Serve(ctx, l, ui.Source{
		Graph: r.graph,
		Trace: func(ctx context.Context, from, to string, family int) (way.Report, error) {
			return trace.Run(ctx, trace.Config{Kubeconfig: conf.Kubeconfig, Namespace: "default", System: conf.System, From: from, To: to, Family: family})
		},
	}, conf.Say)
}

func newReader(kubeconfig string) (r *reader, err error) {
	r = &reader{}
	if r.api, err = person.New(kubeconfig); err != nil {
		return nil, err
	}
	if r.kube, err = kube.New(kube.Config{Kubeconfig: kubeconfig, Log: slog.New(slog.DiscardHandler)}); err != nil {
		return nil, err
	}
	r.policies, err = r.kube.Policies()
	return r, err
}

// graph reads everything at once. Without nodes and pods there is none; what
// else cannot be read is named.
func (r *reader) graph(ctx context.Context) (graph.Graph, error) {
	var in graph.Input
	var mu sync.Mutex
	var wg sync.WaitGroup
	var fatal error
	lacks := func(what string, needed bool, err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil && needed:
			fatal = errors.Join(fatal, err)
		case err != nil:
			in.Missing = append(in.Missing, fmt.Sprintf("%s: %v", what, err))
		}
	}
	wg.Go(func() { lacks("Nodes", true, list(ctx, r.api, &in.Nodes, "v1", "nodes")) })
	wg.Go(func() { lacks("Pods", true, list(ctx, r.api, &in.Pods, "v1", "pods")) })
	wg.Go(func() { lacks("Services", false, list(ctx, r.api, &in.Services, "v1", "services")) })
	wg.Go(func() {
		lacks("EndpointSlices", false, list(ctx, r.api, &in.Slices, "discovery.k8s.io/v1", "endpointslices"))
	})
	wg.Go(func() {
		lacks("Ingresses", false, list(ctx, r.api, &in.Ingresses, "networking.k8s.io/v1", "ingresses"))
	})
	wg.Go(func() {
		var err error
		in.Networks, err = r.kube.Networks(ctx)
		lacks("NodeNetworks", false, err)
	})
	wg.Go(func() {
		var err error
		in.Policies, err = r.rules(ctx)
		lacks("policies", false, err)
	})
	wg.Wait()
	in.Now = time.Now()
	return graph.Build(in), fatal
}

func list[T any](ctx context.Context, c *person.Client, to *[]T, group, resource string) (err error) {
	*to, err = person.List[T](ctx, c, person.Path(group, "", resource, ""), "", "")
	return err
}

// rules are the policies, as they are followed since the page was started.
func (r *reader) rules(ctx context.Context) (o policy.Objects, err error) {
	ctx, stop := context.WithTimeout(ctx, viewTime)
	defer stop()
	select {
	case <-r.policies.Ready():
		return r.policies.Objects(), nil
	case <-ctx.Done():
		return o, errors.New(r.policies.Waiting())
	}
}
