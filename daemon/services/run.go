package services

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/apply/flows"
	"poplin.dev/poplin/pkg/apply/sysctl"
	applyvip "poplin.dev/poplin/pkg/apply/vip"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/services"
)

// flowsPause is the least time between two looks at all UDP flows: the kernel
// has to list them.
const flowsPause = 250 * time.Millisecond

// pass is what one Run works with.
type pass struct {
	*Module
	kernel, eyes *applyvip.Table // eyes only look
	flows        *flows.Conn

	known atomic.Pointer[map[netip.Addr]bool] // addresses of nodes
	table *services.Table                     // nil before the first full pass
	// unsure says that the kernel may not hold what the table says.
	unsure  bool
	waiting string // what the log last said the module waits for
	// looked is when all UDP flows were last looked at; willLook says that
	// they will be, when it is time again.
	looked   time.Time
	willLook bool
	// told are the findings that users were told of, and answering the
	// Services with a health-check port.
	told      map[service.Key][]services.Finding
	answering map[service.Key]services.Health

	sysctls  sysctl.Tree
	claimed  map[claim]bool    // node ports that were looked at
	problems map[string]string // what the log last said of the node
}

func open(m *Module) (*pass, error) {
	conf := applyvip.Config{Plain: m.deps.Config.Plain, Log: m.deps.Log}
	kernel, err := applyvip.Open(conf)
	if err != nil {
		return nil, err
	}
	eyes, err := applyvip.Open(conf)
	if err != nil {
		return nil, errors.Join(err, kernel.Close())
	}
	conntrack, err := flows.Open()
	if err != nil {
		return nil, errors.Join(err, kernel.Close(), eyes.Close())
	}
	return &pass{
		Module: m, kernel: kernel, eyes: eyes, flows: conntrack,
		told: map[service.Key][]services.Finding{}, answering: map[service.Key]services.Health{},
		sysctls: sysctl.Tree{Root: m.deps.Config.SysctlRoot, Note: m.deps.Note},
		claimed: map[claim]bool{}, problems: map[string]string{},
	}, nil
}

func (p *pass) close() {
	p.flows.Close()
	p.eyes.Close()
	p.kernel.Close()
}

// Remove takes everything of the module out of the kernel.
func Remove(conf Config, log *slog.Logger) error {
	kernel, err := applyvip.Open(applyvip.Config{Plain: conf.Plain, Log: log})
	if err != nil {
		return err
	}
	defer kernel.Close()
	return kernel.Remove()
}

// do is one pass: what is dirty is compiled, and the difference sent.
func (p *pass) do(ctx context.Context, dirty []key) error {
	start, settled := time.Now(), p.begin()
	state, changed := p.once(dirty)
	done := time.Now()
	state.Took = done.Sub(start)
	if !state.Full && has(dirty, kernel) && !slices.ContainsFunc(dirty, func(k key) bool { return k.what == one || k.what == nodes }) {
		state.Repairs = diff.Event
	}
	settled(state.Err == nil && state.Waiting == "")
	if state.Waiting != p.waiting && state.Waiting != "" {
		p.deps.Log.Info("waiting", "task", p.String(), "for", state.Waiting)
	}
	p.waiting = state.Waiting
	if p.table != nil {
		again := slices.Clone(changed)
		if has(dirty, unsaid) { // Events are kept for an hour
			again = slices.AppendSeq(again, maps.Keys(p.told))
		}
		p.tell(again, &state)
		state.Starved, state.Elements, state.Services = p.table.Starved(), p.table.Program().Len(), p.table.Len()
	}
	if state.Err == nil && state.Waiting == "" {
		p.keep(changed, state.Full || has(dirty, unsaid))
		p.ready.Set()
		state.Problems = len(p.problems)
		for _, k := range changed {
			if t := p.deps.Source.Triggered(k); !t.IsZero() {
				state.Programmed = append(state.Programmed, done.Sub(t))
			}
		}
	}
	if ctx.Err() == nil {
		p.deps.Report(state)
	}
	return state.Err
}

// keep looks after the node, once Services are in place.
func (p *pass) keep(changed []service.Key, everything bool) {
	if everything {
		p.keepSettings()
		clear(p.claimed) // programs come, too
		changed = p.table.Keys()
	}
	p.keepPorts(changed)
	if p.takeAlone() {
		p.succeed()
	}
}

func has(dirty []key, w what) bool {
	return slices.ContainsFunc(dirty, func(k key) bool { return k.what == w })
}

// once compiles and applies, and returns the Services it compiled. Nothing in
// the kernel is touched before the view is complete: a part of the Services
// looks just like Services that were deleted.
func (p *pass) once(dirty []key) (state State, changed []service.Key) {
	if p.table == nil || has(dirty, nodes) || has(dirty, all) || has(dirty, unsaid) {
		node, wait := p.facts()
		if wait != "" && p.table != nil {
			node = p.node // the Node is gone, but not this machine
		} else if wait == "" && !p.deps.Source.Complete() {
			wait = "a complete view of the Services"
		}
		if wait != "" && p.table == nil {
			// What an earlier process left holds until then: from now on it
			// is owned, and nobody can flush it.
			_, state.Err = p.kernel.Program()
			state.Waiting = wait
			return state, nil
		}
		if state.Full = p.table == nil || has(dirty, all) || !same(node, p.node); state.Full {
			changed, state.Err = p.full(node)
		}
		p.setNode(node)
	}
	if state.Err == nil && !state.Full {
		for _, k := range dirty {
			if k.what == one {
				p.update(k.Key)
				changed = append(changed, k.Key)
			}
		}
	}
	if p.table == nil {
		return state, nil
	}
	if has(dirty, kernel) || state.Full {
		p.unsure = true
	}
	written, err := p.apply()
	state.Written = written
	p.willLook = p.willLook && !has(dirty, flowing)
	if err == nil {
		state.Ended, err = p.endFlows(state.Full || has(dirty, unsaid))
	}
	state.Err = errors.Join(state.Err, err)
	return state, changed
}

// full compiles everything.
func (p *pass) full(node services.Node) (changed []service.Key, err error) {
	if p.table == nil {
		before, err := p.kernel.Program()
		if err != nil {
			return nil, err
		}
		p.table = services.NewTable(node, before)
	} else {
		p.table.SetNode(node)
	}
	changed = p.table.Keys() // those that go, and those that stay
	list := p.deps.Source.Services()
	p.table.SetAll(list, p.deps.Source.Slices)
	for _, s := range list {
		changed = append(changed, s.Key)
	}
	slices.SortFunc(changed, service.Key.Compare)
	return slices.Compact(changed), nil
}

// update compiles one Service.
func (p *pass) update(k service.Key) {
	if s, found := p.deps.Source.Service(k); found {
		p.table.Set(s, p.deps.Source.Slices(k))
	} else {
		p.table.Delete(k)
	}
}

// apply sends what has changed, or what the kernel lacks of everything.
func (p *pass) apply() (int, error) {
	change := p.table.Take()
	if p.unsure {
		written, err := p.kernel.Set(p.table.Program())
		p.unsure = err != nil
		return written, err
	}
	err := p.kernel.Apply(change)
	p.unsure = err != nil
	return change.Delete.Len() + change.Put.Len(), err
}

// endFlows ends UDP flows to endpoints that are gone. To look at all flows is
// work for the kernel, so a stream of changes shares looks.
func (p *pass) endFlows(all bool) (int, error) {
	if !p.table.EndsFlows() && !all {
		return 0, nil
	}
	if pause := flowsPause - time.Since(p.looked); pause > 0 {
		if !p.willLook {
			p.willLook = true
			time.AfterFunc(pause, func() { p.queue.Add(key{what: flowing}) })
		}
		return 0, nil
	}
	p.looked = time.Now()
	n, err := p.flows.EndUDP(p.table.Stale)
	if err == nil {
		p.table.FlowsEnded()
	}
	return n, err
}

// tell reports findings and health-check ports of Services that changed.
func (p *pass) tell(changed []service.Key, state *State) {
	for _, k := range changed {
		found := p.table.Findings(k)
		for _, f := range found {
			if !slices.Contains(p.told[k], f) {
				p.deps.Log.Warn("a Service cannot be served as it says", "object", f.Object, "reason", f.Reason, "message", f.Message)
			}
			p.deps.Event(p.deps.Source.Reference(f.Object, f.Slice), f.Reason, f.Message)
		}
		if len(found) > 0 {
			p.told[k] = found
		} else {
			delete(p.told, k)
		}
		h, wanted := p.table.Health(k)
		switch had, is := p.answering[k]; {
		case wanted && (!is || had != h):
			p.answering[k] = h
			p.deps.Health.Set(k, &h)
		case !wanted && is:
			delete(p.answering, k)
			p.deps.Health.Set(k, nil)
		}
	}
	for _, list := range p.told {
		state.Findings += len(list)
	}
}
