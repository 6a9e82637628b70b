package ingress

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/ingress"
	"poplin.dev/poplin/pkg/loop"
)

// api is what the publisher asks of the API server.
type api interface {
	PublishStatus(context.Context, *cluster.Ingress, []cluster.IngressAddress) error
	Event(ctx context.Context, i *cluster.Ingress, why reason.Reason, message string) error
}

// goodbyeTime bounds the writes at the end.
const goodbyeTime = 10 * time.Second

// publisher tells users what became of their Ingresses: status and Events.
// Of all replicas one writes: the one with the lowest address among the ready
// endpoints of the Service in front. All of them see the same endpoints, so
// this needs no lock in the API server; two that differ for a moment write
// the same.
type publisher struct {
	cfg   Config
	api   api
	log   *slog.Logger
	queue *loop.Queue[cluster.ObjectName]
	ready *loop.Ready

	mu        sync.Mutex
	items     map[cluster.ObjectName]*item
	told      map[cluster.ObjectName][]ingress.Finding
	addresses []cluster.IngressAddress
	replicas  []netip.Addr
}

func newPublisher(cfg Config, a api) *publisher {
	p := &publisher{
		cfg: cfg, api: a, log: cfg.Log, queue: loop.NewQueue[cluster.ObjectName](100*time.Millisecond, time.Second), ready: loop.NewReady(),
		items: map[cluster.ObjectName]*item{}, told: map[cluster.ObjectName][]ingress.Finding{},
	}
	p.ready.Set()
	return p
}

func (p *publisher) Ready() <-chan struct{} { return p.ready.Done() }
func (p *publisher) String() string         { return "publisher" }

// tell hands over what a compilation found. An Ingress that is not ours stays
// of interest only where its status was ours.
func (p *publisher) tell(n news) {
	p.mu.Lock()
	var dirty []cluster.ObjectName
	for name, i := range n.ingresses {
		before := p.items[name]
		switch {
		case i == nil:
			delete(p.items, name)
			delete(p.told, name)
		case i.ours, before != nil:
			p.items[name] = i
			dirty = append(dirty, name)
		}
	}
	if !slices.Equal(n.addresses, p.addresses) || !slices.Equal(n.ready, p.replicas) {
		p.addresses, p.replicas = n.addresses, n.ready
		for name := range p.items {
			dirty = append(dirty, name)
		}
	}
	p.mu.Unlock()
	p.queue.Add(dirty...)
}

// writes reports whether this replica is the one. It is called with mu held.
func (p *publisher) writes() bool {
	if p.cfg.Front == (cluster.ObjectName{}) {
		return true
	}
	return len(p.replicas) > 0 && p.replicas[0] == p.cfg.Address
}

// Run implements loop.Task.
func (p *publisher) Run(ctx context.Context) error {
	w := loop.Worker[cluster.ObjectName]{
		Name: p.String(), Queue: p.queue, Do: p.write, Log: p.log,
		Backoff: loop.Backoff{Min: time.Second, Max: time.Minute},
	}
	err := w.Run(ctx)
	p.goodbye()
	return err
}

// write goes on past an Ingress that fails.
func (p *publisher) write(ctx context.Context, names []cluster.ObjectName) error {
	var errs []error
	for _, n := range names {
		p.mu.Lock()
		i, addresses, mine := p.items[n], p.addresses, p.writes()
		p.mu.Unlock()
		if i == nil || !mine || ctx.Err() != nil {
			continue
		}
		errs = append(errs, p.one(ctx, n, i, addresses))
	}
	return errors.Join(errs...)
}

func (p *publisher) one(ctx context.Context, n cluster.ObjectName, i *item, addresses []cluster.IngressAddress) error {
	var errs []error
	switch {
	case p.cfg.Front == (cluster.ObjectName{}):
	case i.ours:
		errs = append(errs, p.api.PublishStatus(ctx, i.Ingress, addresses))
	case len(addresses) > 0 && slices.Equal(i.Status, addresses):
		// It was ours and is not any more; what stands there is our word.
		errs = append(errs, p.api.PublishStatus(ctx, i.Ingress, nil))
	}
	if !i.ours {
		p.mu.Lock()
		delete(p.items, n)
		delete(p.told, n)
		p.mu.Unlock()
		return errors.Join(errs...)
	}
	p.mu.Lock()
	told := p.told[n]
	p.mu.Unlock()
	var said []ingress.Finding
	for _, f := range i.findings {
		if !slices.Contains(told, f) {
			if err := p.api.Event(ctx, i.Ingress, f.Reason, f.Text); err != nil {
				errs = append(errs, err)
				continue
			}
		}
		said = append(said, f)
	}
	p.mu.Lock()
	p.told[n] = said
	p.mu.Unlock()
	return errors.Join(errs...)
}

// goodbye takes the addresses back if no replica is left to answer at them.
func (p *publisher) goodbye() {
	p.mu.Lock()
	defer p.mu.Unlock()
	others := slices.DeleteFunc(slices.Clone(p.replicas), func(a netip.Addr) bool { return a == p.cfg.Address })
	if p.cfg.Front == (cluster.ObjectName{}) || len(others) > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), goodbyeTime)
	defer cancel()
	for _, i := range p.items {
		if i.ours && ctx.Err() == nil {
			if err := p.api.PublishStatus(ctx, i.Ingress, nil); err != nil {
				p.log.Warn("cannot take an address back", "error", err)
			}
		}
	}
}
