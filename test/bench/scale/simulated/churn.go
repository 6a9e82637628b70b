package simulated

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// How often what happens in a cluster where nothing is deployed.
const (
	LeaseEvery  = 10 * time.Second // the kubelet's leaseDurationSeconds/4
	StatusEvery = 5 * time.Minute  // the kubelet's nodeStatusReportFrequency
	PodEvery    = 10 * time.Minute // a node has a pod replaced
	// pause is between the steps of a replacement: each is an event of its own.
	pause = 200 * time.Millisecond
)

// Churn is what goes on beside the measurements.
type Churn struct {
	c    *Cluster
	stop context.CancelFunc
	all  *errgroup.Group

	mu       sync.Mutex
	versions map[Node]string // of leases, as their kubelets know them
	// done counts what was begun in time, late what was not.
	done, late atomic.Int64
}

// Live has the cluster live until it is ended.
func (c *Cluster) Live(ctx context.Context) *Churn {
	ctx, stop := context.WithCancel(ctx)
	h := &Churn{c: c, stop: stop, versions: map[Node]string{}}
	h.all, ctx = errgroup.WithContext(ctx)
	each := func(every time.Duration, do func(ctx context.Context, turn int) error) {
		h.all.Go(func() error { return h.repeat(ctx, every/time.Duration(c.size), do) })
	}
	each(LeaseEvery, func(ctx context.Context, turn int) error { return h.renew(ctx, Node(turn%c.size)) })
	each(StatusEvery, func(ctx context.Context, turn int) error { return h.report(ctx, Node(turn%c.size)) })
	each(PodEvery, func(ctx context.Context, turn int) error {
		return h.replace(ctx, pod(turn*7919%(PodsEach*c.size))) // a prime: each once before one is twice
	})
	return h
}

// End waits for what was begun.
func (h *Churn) End() error {
	h.stop()
	if err := h.all.Wait(); err != nil {
		return fmt.Errorf("churn: %w", err)
	}
	return nil
}

// Late is the part of what there was to do that was not done, because what went
// before took too long.
func (h *Churn) Late() float64 {
	done, late := float64(h.done.Load()), float64(h.late.Load())
	return late / max(1, done+late)
}

// repeat begins something at a rate, whether or not what was begun has ended.
func (h *Churn) repeat(ctx context.Context, every time.Duration, do func(context.Context, int) error) error {
	var g errgroup.Group
	g.SetLimit(4 * atOnce)
	ticks := time.NewTicker(every)
	defer ticks.Stop()
	for turn := 0; ; turn++ {
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-ticks.C:
		}
		// What was begun is ended: a pod that is half replaced could not be again.
		began := g.TryGo(func() error { return do(context.WithoutCancel(ctx), turn) })
		if began {
			h.done.Add(1)
		} else {
			h.late.Add(1)
		}
	}
}

// renew is what a kubelet does with its lease.
func (h *Churn) renew(ctx context.Context, n Node) error {
	h.mu.Lock()
	version := h.versions[n]
	h.mu.Unlock()
	var kept struct {
		Metadata struct{ ResourceVersion string }
	}
	path := leasesPath + "/" + n.Name()
	if version == "" {
		if err := h.c.plane.API.Get(ctx, path, &kept); err != nil {
			return err
		}
		version = kept.Metadata.ResourceVersion
	}
	o := n.lease(time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"))
	o["metadata"].(object)["resourceVersion"] = version
	if err := h.c.plane.API.Send(ctx, http.MethodPut, path+"?fieldManager=kubelet", o, &kept); err != nil {
		return err
	}
	h.mu.Lock()
	h.versions[n] = kept.Metadata.ResourceVersion
	h.mu.Unlock()
	return nil
}

// report is what a kubelet writes of its node though nothing has changed.
func (h *Churn) report(ctx context.Context, n Node) error {
	o := n.object()
	o["status"] = n.status(time.Now().UTC().Format(time.RFC3339))
	return h.c.plane.API.Send(ctx, http.MethodPut, nodesPath+"/"+n.Name()+"/status?fieldManager=kubelet", o, nil)
}

// replace has a pod end gracefully and another one of its name begin, each
// step as the controllers, the scheduler and the kubelet write it: seven events,
// and two of an EndpointSlice where a Service leads to it.
func (h *Churn) replace(ctx context.Context, p pod) error {
	c, n := h.c, h.c.space(p)
	path := podsPath(n) + "/" + p.name()
	send := func(method, path string, o object) func() error {
		return func() error { return c.plane.API.Send(ctx, method, path, o, nil) }
	}
	status := func(life int, addressed, ready bool) func() error {
		o := c.object(p, c.nodeOf(p).Name())
		o["status"] = c.status(p, life, addressed, ready)
		return send(http.MethodPut, path+"/status?fieldManager=kubelet", o)
	}
	c.mu.Lock()
	life := c.lives[p]
	c.mu.Unlock()
	steps := []func() error{
		send(http.MethodDelete, path, object{"gracePeriodSeconds": 30}),
		func() error { return h.serve(ctx, p, life, true) },
		status(life, true, false),
		send(http.MethodDelete, path, object{"gracePeriodSeconds": 0}),
		send(http.MethodPost, podsPath(n)+"?fieldManager=kube-controller-manager", c.object(p, "")),
		send(http.MethodPost, path+"/binding", object{
			"apiVersion": "v1", "kind": "Binding", "metadata": object{"name": p.name()}, "target": object{"kind": "Node", "name": c.nodeOf(p).Name()},
		}),
		status(life+1, false, false),
		status(life+1, true, true),
		func() error { return h.serve(ctx, p, life+1, false) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
		time.Sleep(pause)
	}
	return nil
}

// serve tells a Service's clients what became of one of its pods.
func (h *Churn) serve(ctx context.Context, p pod, life int, ending bool) error {
	c, n := h.c, h.c.space(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lives[p], c.ending[p] = life, ending
	if c.turn(p) >= Behind {
		return nil
	}
	return c.plane.API.Send(ctx, http.MethodPut, slicesPath(n)+"/front-abcde?fieldManager=kube-controller-manager", c.slice(n), nil)
}
