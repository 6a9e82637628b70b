package ingress

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/ingress"
	kube "poplin.dev/poplin/pkg/kube/ingress"
	"poplin.dev/poplin/pkg/loop"
)

const (
	// holdOff gathers what changes together, such as a roll-out's endpoints;
	// the first change after a quiet time does not wait.
	holdOff  = 5 * time.Millisecond
	maxDelay = 100 * time.Millisecond
	// secretsTime is how long the first configuration waits for one more
	// Secret: some may never be readable.
	secretsTime = 10 * time.Second
	// again is how often everything is looked at without a change:
	// certificates expire in silence.
	again = time.Hour
)

// work is why there is something to do.
type work uint8

const (
	changed work = iota
	everything
)

// routes keeps the proxy's program in step with the cluster.
type routes struct {
	cfg     Config
	log     *slog.Logger
	engine  *proxy.Proxy
	count   *metrics
	publish *publisher
	// secrets says which Secrets are wanted.
	secrets func([]cluster.ObjectName)

	queue *loop.Queue[work]
	ready *loop.Ready

	mu       sync.Mutex
	compiler *ingress.Compiler
	synced   bool
	heard    time.Time // when that was, or when the last Secret came
	// held is what the publisher was not told yet.
	held map[cluster.ObjectName]*item
}

func newRoutes(cfg Config, engine *proxy.Proxy, count *metrics) *routes {
	return &routes{
		cfg: cfg, log: cfg.Log, engine: engine, count: count, compiler: ingress.New(cfg.Compile),
		queue: loop.NewQueue[work](holdOff, maxDelay), ready: loop.NewReady(), held: map[cluster.ObjectName]*item{},
	}
}

func (r *routes) Ready() <-chan struct{} { return r.ready.Done() }
func (r *routes) String() string         { return "routes" }

// reader hands what the cluster says to the compiler.
func (r *routes) reader() kube.Reader {
	return kube.Reader{
		Class: func(n string, c *cluster.IngressClass) { r.told(func() { r.compiler.SetClass(n, c) }) },
		Ingress: func(n cluster.ObjectName, i *cluster.Ingress) {
			r.told(func() { r.compiler.SetIngress(n, i) })
		},
		Service: func(n cluster.ObjectName, s *cluster.Service) { r.told(func() { r.compiler.SetService(n, s) }) },
		Endpoints: func(n cluster.ObjectName, slice string, s *cluster.EndpointSlice) {
			r.told(func() { r.compiler.SetEndpoints(n, slice, s) })
		},
		Secret: func(n cluster.ObjectName, s *cluster.Secret) {
			r.told(func() { r.compiler.SetSecret(n, s); r.heard = time.Now() })
		},
		Synced: func() { r.told(func() { r.synced, r.heard = true, time.Now() }) },
	}
}

func (r *routes) told(set func()) {
	r.mu.Lock()
	set()
	r.mu.Unlock()
	r.queue.Add(changed)
}

// Run implements loop.Task.
func (r *routes) Run(ctx context.Context) error {
	w := loop.Worker[work]{Name: r.String(), Queue: r.queue, Do: r.compile, Every: again, Again: everything, Log: r.log}
	return w.Run(ctx)
}

// compile makes what changed true. Until the first complete view it only
// learns which Secrets it needs.
func (r *routes) compile(_ context.Context, keys []work) error {
	start := time.Now()
	r.mu.Lock()
	if !r.synced {
		r.mu.Unlock()
		return nil
	}
	if slices.Contains(keys, everything) {
		r.compiler.All()
	}
	result := r.compiler.Compile(start)
	wanted, pending := r.compiler.Wanted(), len(r.compiler.Pending())
	r.hold(result)
	waited := time.Since(r.heard)
	r.mu.Unlock()

	r.secrets(wanted)
	if !r.isReady() && pending > 0 && waited < secretsTime {
		// Look again in time, if no Secret comes.
		time.AfterFunc(secretsTime-waited, func() { r.queue.Add(changed) })
		return nil
	}
	r.engine.Set(result.Program)
	news := r.news()
	r.count.compiled(result.Program, news.ingresses, time.Since(start))
	r.publish.tell(news)
	if !r.isReady() {
		r.log.Info("the first configuration is complete", "hosts", len(result.Program.Hosts), "backends", len(result.Program.Backends),
			"certificates", len(result.Program.Certificates), "took", time.Since(start))
		r.ready.Set()
	}
	return nil
}

func (r *routes) isReady() bool {
	select {
	case <-r.ready.Done():
		return true
	default:
		return false
	}
}

// news is what the publisher needs of a compilation.
type news struct {
	// ingresses are those that were looked at again; nil ones are gone.
	ingresses map[cluster.ObjectName]*item
	addresses []cluster.IngressAddress
	ready     []netip.Addr
}

type item struct {
	*cluster.Ingress
	ours     bool
	findings []ingress.Finding
}

// hold keeps what a compilation found until it is in force. It is called with
// mu held.
func (r *routes) hold(result ingress.Result) {
	for n, findings := range result.Findings {
		i := r.compiler.Ingress(n)
		if i == nil {
			r.held[n] = nil
			continue
		}
		if !r.compiler.Known(n) {
			findings = nil
		}
		r.held[n] = &item{Ingress: i, ours: r.compiler.Serves(n), findings: findings}
	}
}

func (r *routes) news() news {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := news{ingresses: r.held}
	r.held = map[cluster.ObjectName]*item{}
	if r.cfg.Front != (cluster.ObjectName{}) {
		s, ready := r.compiler.Front(r.cfg.Front)
		out.addresses, out.ready = ingress.Addresses(s), ready
	}
	return out
}
