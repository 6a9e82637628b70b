// Package trace gathers what an explanation of a request needs: objects from
// the API server, facts from the nodes on the way, and what those nodes should
// hold, by the compilers that their daemons use. Inputs are the two ends as a
// person writes them; output is the report of pkg/trace/path. It refuses to
// change anything, and goes on without what it may not read: that is unknown.
package trace

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"poplin.dev/poplin/daemon/trace/objects"
	"poplin.dev/poplin/daemon/trace/should"
	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/kube"
	"poplin.dev/poplin/pkg/kube/fleet"
	"poplin.dev/poplin/pkg/kube/person"
	"poplin.dev/poplin/pkg/trace/path"
	"poplin.dev/poplin/pkg/trace/way"
	"poplin.dev/poplin/pkg/trace/witness"
)

// Config is what a trace is about.
type Config struct {
	Kubeconfig string
	// Namespace is that of names without one.
	Namespace string
	From, To  string
	// Family is 4 or 6; 0 is both.
	Family int
	// System is the namespace of Poplin's pods; empty is where they are found.
	System string
	// Local, if not nil, answers for the node of this name without asking
	// its daemon's pod.
	Local     func(facts.Question) facts.Node
	LocalName string
	// LocalWatch does so for what is seen there of real packets.
	LocalWatch func(ctx context.Context, w facts.Watch, in io.Reader, out io.Writer) error
	// Probe has requests really made; Live waits for somebody's, so long.
	Probe bool
	Live  time.Duration
}

// gatherer is a trace in the making.
type gatherer struct {
	conf Config
	api  *person.Client
	kube *kube.Client
	in   way.Input

	objects *objects.Reader
	// compiled is what nodes should hold things of, once it was all read.
	compiled func(context.Context) should.Objects
	// daemons are the pods to ask, by node.
	daemons map[string]string
}

// Run traces.
func Run(ctx context.Context, conf Config) (way.Report, error) {
	g, done, err := gather(ctx, conf)
	if err != nil {
		return way.Report{}, err
	}
	defer done()
	if g.in.From, err = g.from(ctx, conf.From); err != nil {
		return way.Report{}, err
	}
	if g.in.To, err = g.to(ctx, conf.To); err != nil {
		return way.Report{}, err
	}
	if g.in.To.Port == 0 && g.in.To.Missing == "" && g.in.To.Unresolved == "" {
		return way.Report{}, fmt.Errorf("which port? write %s:PORT", conf.To)
	}
	g.narrow()
	cases := way.Cases(&g.in)
	g.ask(ctx, cases)
	all := g.compiled(ctx)
	for _, node := range way.Involved(cases) {
		g.in.Desired[node] = should.Hold(all, node, g.in.Facts[node], false)
	}
	g.in.Now = time.Now()
	r := path.Walk(&g.in)
	if conf.Probe || conf.Live > 0 {
		witness.Judge(&g.in, &r, cases, g.watch(ctx, cases))
	}
	r.At(g.conf.System)
	return r, nil
}

// gather begins: it knows the cluster's nodes, and how to find objects.
func gather(ctx context.Context, conf Config) (g *gatherer, done func(), err error) {
	g = &gatherer{conf: conf, daemons: map[string]string{}}
	g.in.Facts, g.in.Absent, g.in.Desired = map[string]facts.Node{}, map[string]string{}, map[string]way.Desired{}
	done, err = g.connect(ctx)
	if err != nil && conf.Local != nil {
		g.conf.System = cmp.Or(conf.System, fleet.Home(nil))
		done, err = func() {}, g.remember(err)
	}
	return g, done, err
}

// connect begins to read from the API server; all that it began ends with done.
func (g *gatherer) connect(ctx context.Context) (done func(), err error) {
	if g.api, err = person.New(g.conf.Kubeconfig); err != nil {
		return nil, err
	}
	g.objects = objects.New(g.api)
	if g.kube, err = kube.New(kube.Config{Kubeconfig: g.conf.Kubeconfig, Log: slog.New(slog.DiscardHandler)}); err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	var views sync.WaitGroup
	done = func() { stop(); views.Wait() }
	if err := g.follow(ctx, &views); err != nil {
		done()
		return nil, err
	}
	if err := g.cluster(ctx); err != nil {
		done()
		return nil, err
	}
	return done, nil
}

// follow begins to read what is compiled, so that it is there when it is needed.
func (g *gatherer) follow(ctx context.Context, views *sync.WaitGroup) error {
	services, err := g.kube.Services()
	if err != nil {
		return err
	}
	policies, err := g.kube.Policies()
	if err != nil {
		return err
	}
	for _, run := range []func(context.Context) error{services.Run, policies.Run} {
		views.Go(func() { _ = run(ctx) }) // ends without an error when told to
	}
	g.compiled = func(ctx context.Context) should.Objects {
		o := should.Objects{Objects: g.in.Objects, Missing: map[string]string{}}
		if err := wait(ctx, services.Ready(), services.Waiting); err != nil {
			o.Missing["services"] = err.Error()
		} else {
			o.Services, o.Slices, o.Ranges = services.Services(), services.Slices, services.Ranges()
		}
		if err := wait(ctx, policies.Ready(), policies.Waiting); err != nil {
			o.Missing["policy"] = err.Error()
		} else {
			o.Policies = policies.Objects()
		}
		return o
	}
	return nil
}

// viewTime is how long the whole of Services or policies is waited for.
const viewTime = 3 * time.Second

func wait(ctx context.Context, ready <-chan struct{}, waiting func() string) error {
	ctx, stop := context.WithTimeout(ctx, viewTime)
	defer stop()
	select {
	case <-ready:
		return nil
	case <-ctx.Done():
		return errors.New(waiting())
	}
}

// cluster reads nodes, the daemons' pods and the name server.
func (g *gatherer) cluster(ctx context.Context) error {
	if g.conf.Local != nil { // there is somebody else to ask
		if err := g.api.Answers(ctx); err != nil {
			return err
		}
		var stop func()
		ctx, stop = context.WithTimeout(ctx, viewTime)
		defer stop()
	}
	var daemons map[string]fleet.Pod
	var wg sync.WaitGroup
	var errs [2]error
	wg.Go(func() {
		g.in.Objects.Nodes, errs[0] = person.List[object.Node](ctx, g.api, person.Path("v1", "", "nodes", ""), "", "")
	})
	wg.Go(func() { g.in.Objects.Networks, errs[1] = g.kube.Networks(ctx) })
	wg.Go(func() { // who may not ask daemons gets no answer of theirs
		daemons, _ = fleet.Pods(ctx, g.api, g.conf.System)
	})
	wg.Go(func() { // without, the hop is unknown
		g.in.Objects.DNS, g.in.Objects.DNSSlices, _ = g.objects.NameServer(ctx)
	})
	wg.Wait()
	g.conf.System = cmp.Or(g.conf.System, fleet.Home(daemons))
	for node, p := range daemons {
		if p.Meta.Deleted == nil && p.Status.Phase == "Running" {
			g.daemons[node] = p.Meta.Name
		}
	}
	return cmp.Or(errs[:]...)
}

// narrow leaves one family.
func (g *gatherer) narrow() {
	if g.conf.Family == 0 {
		return
	}
	g.in.To.Addrs = slices.DeleteFunc(slices.Clone(g.in.To.Addrs), func(a netip.Addr) bool { return a.Is4() != (g.conf.Family == 4) })
}

// nodeTime is how long one node has to answer.
const nodeTime = 5 * time.Second

// ask asks all nodes on the way at once.
func (g *gatherer) ask(ctx context.Context, cases []way.Case) {
	ctx, stop := context.WithTimeout(ctx, nodeTime)
	defer stop()
	names := way.Involved(cases)
	for _, p := range g.in.Objects.Pods { // why pods have no addresses, and who listens
		if g.concerns(p) && p.Spec.NodeName != "" && !slices.Contains(names, p.Spec.NodeName) {
			names = append(names, p.Spec.NodeName)
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, node := range names {
		q := g.question(node, cases)
		wg.Go(func() {
			f, err := g.node(ctx, node, q)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				g.in.Absent[node] = err.Error()
			} else {
				g.in.Facts[node] = f
			}
		})
	}
	wg.Wait()
}

// concerns says that a pod is one of those in question, and not only of their
// namespace.
func (g *gatherer) concerns(p object.Pod) bool {
	for _, t := range []*way.Target{&g.in.To, g.in.Behind} {
		if t != nil && t.Service != nil && t.Service.Selects(p) {
			return true
		}
	}
	for _, x := range []*object.Pod{g.in.From.Pod, g.in.To.Pod} {
		if x != nil && x.UID == p.UID {
			return true
		}
	}
	return false
}

// question is what one node is asked.
func (g *gatherer) question(node string, cases []way.Case) facts.Question {
	q := facts.Question{Kinds: facts.Kinds()}
	for _, c := range cases {
		if c.Enters != node && c.Node != node {
			continue
		}
		for _, f := range c.Flows() {
			if !slices.Contains(q.Flows, f) {
				q.Flows = append(q.Flows, f)
			}
		}
		if other := c.Other(node); other != "" {
			if w, ok := g.way(node, other, c.Dst.Addr().Is4()); ok && !slices.Contains(q.Peers, w) {
				q.Peers = append(q.Peers, w)
			}
		}
	}
	for _, p := range g.in.Objects.Pods {
		if p.Spec.NodeName == node && g.concerns(p) {
			for _, a := range p.Addresses() {
				q.Flows = append(q.Flows, facts.Flow{To: netip.AddrPortFrom(a, g.in.To.Port), Proto: g.in.To.Proto})
			}
		}
	}
	if len(q.Flows) == 0 { // without any, the answer would be about everything
		q.Kinds = []facts.Kind{facts.OfDaemon}
	}
	return q
}

// way says how one node reaches another.
func (g *gatherer) way(node, other string, ipv4 bool) (facts.Way, bool) {
	a, okA := g.in.Objects.Network(node)
	b, okB := g.in.Objects.Network(other)
	if !okA || !okB {
		return facts.Way{}, false
	}
	w := facts.Way{Node: other, Outer: b.VTEP.Addr, MTU: min(a.MTU, b.MTU)}
	if !a.VTEP.Tunnel() || !b.VTEP.Tunnel() {
		return w, true
	}
	for _, p := range b.PodCIDRs {
		for _, o := range a.PodCIDRs {
			if p.Addr().Is4() == ipv4 && o.Addr().Is4() == ipv4 {
				w.Inner, w.From = p.Addr(), o.Addr()
			}
		}
	}
	return w, true
}

// node asks one.
func (g *gatherer) node(ctx context.Context, node string, q facts.Question) (f facts.Node, err error) {
	if g.conf.Local != nil && node == g.conf.LocalName {
		return g.conf.Local(q), nil
	}
	pod, err := g.daemon(node)
	if err != nil {
		return f, err
	}
	text, err := json.Marshal(q)
	if err != nil {
		return f, err
	}
	out, err := g.api.Run(ctx, g.conf.System, pod, "poplind", []string{"/poplind", "query", "-question", string(text)})
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(out, &f); err != nil {
		return f, fmt.Errorf("read the answer of node %s: %w", node, err)
	}
	if f.Version != facts.Version {
		return f, fmt.Errorf("node %s speaks version %d of facts, and this program %d: use the poplinctl of its version", node, f.Version, facts.Version)
	}
	return f, nil
}
