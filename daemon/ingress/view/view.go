// Package view reads a cluster's Ingresses once and compiles them as
// poplin-ingress does, so what it says of them cannot differ from what is
// served. Inputs are an API server and whose classes to look at; output is
// each Ingress with its findings and the conditions of its TLS Secrets. It
// refuses to write anything.
package view

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/ingress"
	kube "poplin.dev/poplin/pkg/kube/ingress"
)

// secretsTime is how long Secrets are waited for, which the reader may have
// no right to.
const secretsTime = 3 * time.Second

// View is what there is at one moment.
type View struct {
	// Ingresses are those that are served, by namespace and name.
	Ingresses []*cluster.Ingress
	Result    ingress.Result

	compiler *ingress.Compiler
	now      time.Time
}

// Conditions are those of an Ingress' TLS Secrets.
func (v *View) Conditions(n cluster.ObjectName) []ingress.Condition {
	return v.compiler.Conditions(n, v.now)
}

// reading is a view in the making.
type reading struct {
	changed chan struct{}

	mu        sync.Mutex
	compiler  *ingress.Compiler
	ingresses map[cluster.ObjectName]*cluster.Ingress
}

// Read reads everything once.
func Read(ctx context.Context, k kube.Config, cfg ingress.Config) (*View, error) {
	r := &reading{changed: make(chan struct{}, 1), compiler: ingress.New(cfg), ingresses: map[cluster.ObjectName]*cluster.Ingress{}}
	client, err := kube.New(k, r.reader())
	if err != nil {
		return nil, err
	}
	watching, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = client.Run(watching) // ends without an error when told to
	}()
	defer func() { stop(); <-ended }()
	select {
	case <-client.Ready():
	case <-ctx.Done():
		return nil, fmt.Errorf("read Ingresses, Services and EndpointSlices: %w", ctx.Err())
	}
	client.WantSecrets(r.wanted())
	r.await(ctx)
	return r.view(), nil
}

func (r *reading) reader() kube.Reader {
	told := func(set func()) {
		r.mu.Lock()
		defer r.mu.Unlock()
		set()
		select {
		case r.changed <- struct{}{}:
		default: // it is known already
		}
	}
	c := r.compiler
	return kube.Reader{
		Class: func(n string, v *cluster.IngressClass) { told(func() { c.SetClass(n, v) }) },
		Ingress: func(n cluster.ObjectName, v *cluster.Ingress) {
			told(func() { c.SetIngress(n, v); r.ingresses[n] = v })
		},
		Service: func(n cluster.ObjectName, v *cluster.Service) { told(func() { c.SetService(n, v) }) },
		Endpoints: func(n cluster.ObjectName, slice string, v *cluster.EndpointSlice) {
			told(func() { c.SetEndpoints(n, slice, v) })
		},
		Secret: func(n cluster.ObjectName, v *cluster.Secret) { told(func() { c.SetSecret(n, v) }) },
		Synced: func() {},
	}
}

// wanted are the Secrets that Ingresses name.
func (r *reading) wanted() []cluster.ObjectName {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.compiler.Compile(time.Now())
	return r.compiler.Wanted()
}

// await waits until each Secret was heard of, but not for long.
func (r *reading) await(ctx context.Context) {
	ctx, stop := context.WithTimeout(ctx, secretsTime)
	defer stop()
	for {
		r.mu.Lock()
		pending := len(r.compiler.Pending())
		r.mu.Unlock()
		if pending == 0 {
			return
		}
		select {
		case <-r.changed:
		case <-ctx.Done():
			return
		}
	}
}

func (r *reading) view() *View {
	r.mu.Lock()
	defer r.mu.Unlock()
	v := &View{compiler: r.compiler, now: time.Now()}
	r.compiler.All()
	v.Result = r.compiler.Compile(v.now)
	for n, i := range r.ingresses {
		if r.compiler.Serves(n) {
			v.Ingresses = append(v.Ingresses, i)
		}
	}
	slices.SortFunc(v.Ingresses, func(a, b *cluster.Ingress) int { return a.ObjectName.Compare(b.ObjectName) })
	return v
}
