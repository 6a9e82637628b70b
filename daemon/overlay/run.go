package overlay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/apply/foreign"
	"poplin.dev/poplin/pkg/apply/podlink"
	"poplin.dev/poplin/pkg/apply/route"
	"poplin.dev/poplin/pkg/apply/sysctl"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/pkg/masquerade"
	"poplin.dev/poplin/pkg/overlay"
	"poplin.dev/poplin/pkg/program"
)

// key is what may be dirty.
type key string

const (
	model  key = "model"  // the cluster's view changed
	links  key = "links"  // somebody changed links, addresses, neighbours or routes
	rules  key = "rules"  // somebody changed our nftables table
	kernel key = "kernel" // it is time to look at everything again

	settings key = "settings" // it is time to look at the sysctls
)

// A burst of changes costs one pass; a single one is done at once.
const (
	holdOff  = 50 * time.Millisecond
	maxDelay = 500 * time.Millisecond
)

// publishTimeout bounds how long the API server can keep the module from
// repairing the kernel.
const publishTimeout = 5 * time.Second

// pass is what one Run works with.
type pass struct {
	*Module
	routes  *route.Applier
	pods    *podlink.Reader
	sysctls sysctl.Tree
	others  others
	sums    checksums
	waiting string // what the log last said the module waits for

	// of the last pass: whether all was well, the overlay's sysctls and MTU,
	// and how many pods have a larger one
	fine      atomic.Bool
	settings  []program.Sysctl
	mtu       int
	largePods int
}

// Run implements loop.Task. All work on the kernel happens on the calling
// goroutine, and so in the network namespace of its thread if it is locked to
// one.
func (m *Module) Run(ctx context.Context) error {
	p := &pass{
		Module: m, sums: newChecksums(m.deps.Log),
		sysctls: sysctl.Tree{Root: m.deps.Config.SysctlRoot, Note: m.deps.Note},
	}
	queue := loop.NewQueue[key](holdOff, maxDelay)
	m.deps.Source.Subscribe(func() { queue.Add(model) })

	var err error
	p.routes, err = route.Open(route.Config{
		Link:    overlay.Link,
		Sysctls: p.sysctls.Set,
		Log:     m.deps.Log,
	})
	if err != nil {
		return err
	}
	defer p.routes.Close()
	if p.pods, err = podlink.Open(); err != nil {
		return err
	}
	defer p.pods.Close()
	events, err := p.routes.Subscribe()
	if err != nil {
		return err
	}
	queue.Add(model)
	worker := loop.Worker[key]{
		Name: m.String(), Queue: queue, Log: m.deps.Log, Do: p.do,
		Backoff: loop.Backoff{Min: 200 * time.Millisecond, Max: 30 * time.Second},
		Every:   m.deps.Config.Resync, Again: kernel,
		Beside: []func(context.Context){
			func(ctx context.Context) { events.Run(ctx, func() { queue.Add(links) }) },
			func(ctx context.Context) { p.sums.run(ctx, func() { queue.Add(model) }) },
			func(ctx context.Context) { p.tickSettings(ctx, func() { queue.Add(settings) }) },
			func(ctx context.Context) { m.watchRules(ctx, func() { queue.Add(rules) }) },
		},
	}
	return worker.Run(ctx)
}

// watchRules hears of changes to our table, unless the kernel prevents them.
// Without it they are found at the next look at everything.
func (m *Module) watchRules(ctx context.Context, changed func()) {
	if err := m.deps.Table.Watch(ctx, changed); err != nil {
		m.deps.Log.Error("changes to our nftables rules are noticed late", "error", err)
	}
}

// do is one pass: everything as it should be now, whatever was dirty.
func (p *pass) do(ctx context.Context, dirty []key) error {
	if len(dirty) == 1 && dirty[0] == settings {
		if hold, err := p.settingsHold(); hold || err != nil {
			return err
		}
	}
	look := slices.Contains(dirty, kernel)
	if look || slices.Contains(dirty, links) {
		p.routes.Forget()
	}
	if look || slices.Contains(dirty, rules) {
		p.deps.Table.Forget()
	}
	if look {
		p.others.listed = false
	}
	start := time.Now()
	state, wait := p.once(ctx)
	state.Took, state.Repairs = time.Since(start), cause(dirty)
	if wait != "" {
		// Not an error: the Source says when there is more to know.
		state.Err = errors.New("waiting for " + wait)
	}
	if wait != p.waiting && wait != "" {
		p.deps.Log.Info("waiting", "task", p.String(), "for", wait)
	}
	p.waiting = wait
	p.fine.Store(state.InPlace)
	if ctx.Err() == nil {
		p.deps.Report(state)
	}
	if state.InPlace {
		p.ready.Set()
	}
	if wait != "" {
		return nil
	}
	return state.Err
}

// cause is how a pass that is not about the cluster's changes came to be.
func cause(dirty []key) diff.Cause {
	has := func(k key) bool { return slices.Contains(dirty, k) }
	switch {
	case has(model):
		return ""
	case has(links) || has(rules):
		return diff.Event
	case has(settings):
		return diff.Setting
	}
	return diff.Look
}

// once compiles and applies. Nothing in the kernel is touched before both
// this node and the list of all nodes are known: a part of the list looks
// just like a list of nodes that left.
func (p *pass) once(ctx context.Context) (state State, wait string) {
	self, ok := p.deps.Source.Self()
	state.Self = self
	switch {
	case !ok:
		return state, "this node's Node object"
	case len(self.Addresses) == 0:
		state.Unfit = "the Node has no InternalIP in status.addresses, which the kubelet or the cloud provider sets"
	case len(self.PodCIDRs) == 0:
		state.Unfit = "the Node has no spec.podCIDRs, which kube-controller-manager sets with --allocate-node-cidrs"
	}
	if state.Unfit != "" {
		return state, "the Node to change: " + state.Unfit
	}
	nodes, ok := p.deps.Source.Nodes()
	if !ok {
		return state, "the first complete list of NodeNetworks"
	}
	me, err := p.facts(self)
	state.Underlay, state.MTU, state.Checksums = me.Underlay, me.MTU, p.sums.Checksums
	if err != nil {
		state.Err = err
		return state, ""
	}
	peers, refused := overlay.Peers(me, nodes, p.deps.Config.ClusterCIDRs)
	for _, r := range refused {
		state.Refused = append(state.Refused, Refusal(r))
	}
	state.Peers, state.Others, state.Ends = len(peers), peers, me.Ends
	// Masquerade comes before the routes: a connection to a new peer that
	// began between the two would keep the wrong source address for life.
	masq, errMasq := p.deps.Table.Set(ctx, p.masquerade(me, peers))
	guards, errGuards := p.deps.Table.Set(ctx, overlay.Guards(me, peers))
	errOthers := p.openFirewalls(me)
	want := overlay.Compile(me, peers)
	p.settings, p.mtu = want.Sysctls, me.MTU
	routes, errRoutes := p.routes.Set(ctx, want)
	state.Result = masq.Plus(guards).Plus(routes)
	p.sums.test(me, peers)
	state.Blocking, state.LargePods = p.others.blocking, p.largePods
	var errStrays error
	state.Strays, errStrays = p.strays(self)
	// Last, because others send here once they read it; but also where one
	// peer failed, because that must not cut this node off from the rest.
	errPublish := p.publish(ctx, me.Node(), nodes)
	// All is done that can be; but pods are to wait while others will not believe it.
	errContested := overlay.Contested(me, nodes, p.deps.Config.ClusterCIDRs)
	if errContested != nil {
		state.Contested, state.Unfit = true, errContested.Error()
	}
	state.Err = errors.Join(errMasq, errGuards, errOthers, errRoutes, errStrays, errPublish, errContested)
	state.InPlace = state.Err == nil
	return state, ""
}

// facts puts together what the compiler needs to know of this node.
func (p *pass) facts(self cluster.Self) (overlay.Self, error) {
	conf := p.deps.Config
	me := overlay.Self{
		Name: self.Name, PodCIDRs: self.PodCIDRs, MAC: cluster.MACOf(self.UID),
		MTU: conf.MTU, VNI: conf.VNI, Port: conf.Port, NoTunnel: conf.NoTunnel,
	}
	// The family of the first InternalIP is the underlay's, so that all
	// nodes of a dual-stack cluster choose the same.
	var candidates []netip.Addr
	for _, a := range self.Addresses {
		if a.Is4() == self.Addresses[0].Is4() {
			candidates = append(candidates, a)
		}
	}
	var err error
	if me.Underlay, err = p.routes.Underlay(conf.Interface, candidates); err != nil {
		return me, err
	}
	if !conf.NoTunnel {
		if err := p.sums.resolve(conf.Checksums, me.Underlay, p.routes.SumsInSoftware); err != nil {
			return me, err
		}
		me.SoftwareChecksum = p.sums.Software
	}
	if conf.DirectRouting || conf.NoTunnel {
		if me.Direct, err = p.routes.Networks(me.Underlay.Index, self.Addresses); err != nil {
			return me, err
		}
	}
	return me.Resolve()
}

// strays are pods whose addresses are in ranges that this node does not have
// any more: others reach another node there, or nobody.
func (p *pass) strays(self cluster.Self) (strays []netip.Addr, err error) {
	if len(self.Former) == 0 {
		return nil, nil
	}
	pods, err := p.routes.PodAddresses()
	if err != nil {
		return nil, err
	}
	for _, a := range pods {
		in := func(p netip.Prefix) bool { return p.Contains(a) }
		if slices.ContainsFunc(self.Former, in) && !slices.ContainsFunc(self.PodCIDRs, in) {
			strays = append(strays, a)
		}
	}
	slices.SortFunc(strays, netip.Addr.Compare)
	return strays, nil
}

// masquerade is the program of this node's own packets that leave the cluster.
func (p *pass) masquerade(me overlay.Self, peers []cluster.Node) program.Table {
	if !p.deps.Config.Masquerade {
		return program.Table{Module: masquerade.Module}
	}
	near := slices.Concat(me.PodCIDRs, p.deps.Config.ClusterCIDRs, p.deps.Config.ExcludeCIDRs)
	near = slices.Grow(near, len(peers)*len(me.PodCIDRs))
	for _, n := range peers {
		near = append(near, n.PodCIDRs...)
	}
	return masquerade.Compile(me.PodCIDRs, near, me.Port)
}

// publish tells the other nodes, unless they know.
func (p *pass) publish(ctx context.Context, own cluster.Node, nodes []cluster.Node) error {
	if slices.ContainsFunc(nodes, own.Equal) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, publishTimeout)
	defer cancel()
	if err := p.deps.Publisher.Publish(ctx, own); err != nil {
		return fmt.Errorf("publish NodeNetwork %s: %w", own.Name, err)
	}
	return nil
}

// Remove takes the device, the routes and our rules in other programs' tables
// out of the kernel. Our own table is its opener's to remove.
func Remove(ctx context.Context, log *slog.Logger) (diff.Result, error) {
	routes, err := route.Open(route.Config{Link: overlay.Link, Log: log})
	if err != nil {
		return diff.Result{}, err
	}
	defer routes.Close()
	res, errRoutes := routes.Set(ctx, program.Net{})
	others, errOthers := foreign.Firewall{}.Set(foreign.Want{})
	return res.Plus(others), errors.Join(errRoutes, errOthers)
}
