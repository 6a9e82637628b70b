package services

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"time"

	"poplin.dev/poplin/test/bench/change"
	"poplin.dev/poplin/test/bench/kernel"
	"poplin.dev/poplin/test/bench/plane"
	"poplin.dev/poplin/test/bench/process"
	"poplin.dev/poplin/test/cluster/api"
)

// result is what one proxy did with one size.
type result struct {
	size
	proxy string
	// list is what the API server alone takes for the objects; start is from
	// the start of the process to the last transaction, synced from objects to
	// kernel.
	list, start, synced time.Duration
	// cold is the usage by then, resting that after the changes.
	cold, resting process.Usage
	changes       changes
	ways          []way
}

// changes are single ones, one after the other.
type changes struct {
	change.Times
	cpu   time.Duration // per change
	bytes int           // that the kernel announced, per change
}

// measure has one proxy serve what there is, from a cold start.
func (l *lab) measure(ctx context.Context, p *proxy, s size, o Options) (r result, err error) {
	r = result{size: s, proxy: p.name}
	if err := p.clear(); err != nil {
		return r, err
	}
	if r.list, err = l.List(ctx, "/api/v1/services", "/apis/discovery.k8s.io/v1/endpointslices"); err != nil {
		return r, err
	}
	run, err := process.Start(p.node, filepath.Join(l.Dir, p.name+".log"), p.env, p.args...)
	if err != nil {
		return r, err
	}
	defer run.Stop()
	done, err := p.wait(ctx, run, uint32(s.services+echoes+1)) // the last is default/kubernetes
	if err != nil {
		return r, err
	}
	r.start = done.Sub(run.Began)
	// It may have more to do before it tells.
	if err := api.Poll(ctx, limit, p.name+"'s figures", func(ctx context.Context) error {
		took, err := plane.Metric(ctx, p.node, p.metrics, p.synced)
		r.synced = time.Duration(took * float64(time.Second))
		return err
	}); err != nil {
		return r, err
	}
	if r.cold, err = run.Usage(); err != nil {
		return r, err
	}
	if r.changes, err = l.change(ctx, p, run, o); err != nil {
		return r, err
	}
	if r.ways, err = p.connect(); err != nil {
		return r, err
	}
	time.Sleep(o.rest())
	r.resting, err = run.Usage()
	return r, err
}

const limit = 5 * time.Minute

// wait returns when the proxy's last transaction was.
func (p *proxy) wait(ctx context.Context, run *process.Process, services uint32) (last time.Time, err error) {
	k, err := kernel.Open(p.node.Path())
	if err != nil {
		return last, err
	}
	defer k.Close()
	last, err = k.Settled(limit, func() error { return errors.Join(run.Alive(), ctx.Err()) }, func() (bool, error) {
		return p.there(k, services)
	})
	if err != nil {
		return last, fmt.Errorf("%s and %d Services: %w", p.name, services, err)
	}
	return last, nil
}

// change replaces endpoints, one after the other: neither in step with the
// proxy's clock nor with anything else's.
func (l *lab) change(ctx context.Context, p *proxy, run *process.Process, o Options) (c changes, err error) {
	before, err := run.Usage()
	if err != nil {
		return c, err
	}
	n, apart := p.changes(o, l.crowd)
	c.Times, err = change.Series{Plane: &l.Plane, Namespace: p.node.Path(), Of: slicesPath, N: n, Apart: apart, Next: func() change.Step {
		a := l.address()
		return change.Step{About: a, Shows: strconv.Quote(a.String()), Make: func(ctx context.Context) error {
			return l.replace(ctx, rand.IntN(l.crowd.services), a)
		}}
	}}.Make(ctx)
	if err != nil {
		return c, fmt.Errorf("%s: %w", p.name, err)
	}
	after, err := run.Usage()
	c.cpu, c.bytes = (after.CPU-before.CPU)/time.Duration(n), c.Bytes/n
	return c, err
}
