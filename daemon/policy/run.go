package policy

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/apply/permit"
	"poplin.dev/poplin/pkg/cluster/policy"
	compiler "poplin.dev/poplin/pkg/policy"
)

// pass is what one Run works with.
type pass struct {
	*Module
	kernel *permit.Table
	drops  *drops // nil where none are told of
	// known are the objects that the table was told of, by resource.
	known map[string]map[policy.Key]bool
	// waits are policies as they will be once what they name is known: the pods
	// that they are about wait with them.
	waits map[policy.Key]policy.ClusterPolicy
	// unsure says that the kernel may not hold what the table says.
	unsure  bool
	waiting string // what the log last said the module waits for
	// told are the findings that users were told of.
	told map[policy.Key][]compiler.Finding
}

func open(m *Module) (*pass, error) {
	heard := hear(m)
	kernel, err := permit.Open(permit.Config{Plain: m.deps.Config.Plain, Keep: m.deps.Config.Keep, LogDrops: heard != nil, Log: m.deps.Log})
	if err != nil {
		heard.close()
		return nil, err
	}
	m.judging.Lock()
	m.table = nil // of an earlier run
	m.judging.Unlock()
	return &pass{
		Module: m, kernel: kernel, drops: heard, told: map[policy.Key][]compiler.Finding{}, waits: map[policy.Key]policy.ClusterPolicy{},
		known: map[string]map[policy.Key]bool{namespaces: {}, nodes: {}, pods: {}, policies: {}, clusterPolicies: {}},
	}, nil
}

func (p *pass) close() {
	p.kernel.Close()
	p.drops.close()
}

// Remove takes everything of the module out of the kernel.
func Remove(conf Config, log *slog.Logger) error {
	kernel, err := permit.Open(permit.Config{Plain: conf.Plain, Log: log})
	if err != nil {
		return err
	}
	defer kernel.Close()
	return kernel.Remove()
}

// do is one pass: what is dirty is compiled, and the difference sent.
func (p *pass) do(ctx context.Context, dirty []key) error {
	start := time.Now()
	p.judging.Lock()
	defer p.judging.Unlock()
	state := p.once(dirty)
	state.Took = time.Since(start)
	if len(dirty) == 1 && dirty[0] == kernel {
		state.Repairs = diff.Event
	}
	if state.Waiting != p.waiting && state.Waiting != "" {
		p.deps.Log.Info("waiting", "task", p.String(), "for", state.Waiting)
	}
	p.waiting = state.Waiting
	if p.table != nil {
		program := p.table.Program()
		state.Elements, state.Isolated = program.Len(), len(program.Loops)
		state.Policies = len(p.known[policies]) + len(p.known[clusterPolicies])
		for _, list := range p.told {
			state.Findings += len(list)
		}
	}
	if state.Err == nil && state.Waiting == "" {
		p.ready.Set()
		p.inForce()
	}
	if ctx.Err() == nil {
		p.deps.Report(state)
	}
	return state.Err
}

// once compiles and applies. Nothing in the kernel is touched before the view
// is complete: a part of the policies looks just like policies that were
// deleted.
func (p *pass) once(dirty []key) (state State) {
	if p.table == nil {
		// From now on the table is owned: what an earlier process left holds
		// until the view is complete, and nobody can flush it.
		before, err := p.kernel.Program()
		if err != nil {
			state.Err = err
			return state
		}
		if !p.deps.Source.Complete() {
			state.Waiting = "a complete view of the policies"
			return state
		}
		p.table = compiler.NewTable(p.deps.Config.Node, before)
		dirty = append(dirty, everything)
	}
	if state.Full = slices.Contains(dirty, everything); state.Full {
		p.full()
	}
	for _, k := range dirty {
		if k != everything && k != kernel && !state.Full {
			p.update(k.resource, k.Key)
		}
	}
	if slices.ContainsFunc(dirty, func(k key) bool { return k != kernel && k.resource != pods }) {
		p.deps.Namespaces(p.table.Namespaces(slices.Collect(maps.Values(p.waits))...))
	}
	p.unsure = p.unsure || state.Full || slices.Contains(dirty, kernel)
	state.Written, state.Err = p.apply()
	return state
}

// full tells the table of everything there is.
func (p *pass) full() {
	for _, resource := range resources {
		list := p.deps.Source.Keys(resource)
		for k := range p.known[resource] {
			list = append(list, k) // those that go
		}
		slices.SortFunc(list, policy.Key.Compare)
		for _, k := range slices.Compact(list) {
			p.update(resource, k)
		}
	}
}

// update tells the table of one object.
func (p *pass) update(resource string, k policy.Key) {
	found := false
	switch resource {
	case pods:
		var o policy.Pod
		if o, found = p.pod(k); found {
			p.table.SetPod(o)
		} else {
			p.table.DeletePod(k)
		}
	case namespaces:
		var o policy.Namespace
		if o, found = p.deps.Source.Namespace(k); found {
			p.table.SetNamespace(o)
		} else {
			p.table.DeleteNamespace(k.Name)
		}
	case nodes:
		var o policy.Node
		if o, found = p.deps.Source.Node(k); found {
			p.table.SetNode(o)
		} else {
			p.table.DeleteNode(k.Name)
		}
	case policies:
		var o policy.NetworkPolicy
		if o, found = p.deps.Source.Policy(k); found {
			p.tell(k, p.table.SetPolicy(o))
		} else {
			p.table.DeletePolicy(k)
			p.tell(k, nil)
		}
	case clusterPolicies:
		var o policy.ClusterPolicy
		var waits bool
		if o, found, waits = p.deps.Source.ClusterPolicy(k); waits {
			p.waits[k] = o
			return
		}
		delete(p.waits, k)
		if found {
			p.tell(k, p.table.SetClusterPolicy(o))
		} else {
			p.table.DeleteClusterPolicy(k)
			p.tell(k, nil)
		}
	}
	if found {
		p.known[resource][k] = true
	} else {
		delete(p.known[resource], k)
	}
}

// apply sends what has changed, or what the kernel lacks of everything.
func (p *pass) apply() (written int, err error) {
	change := p.table.Take()
	if p.unsure {
		p.kernel.Forget()
		written, err = p.kernel.Set(p.table.Program())
	} else {
		written = change.Delete.Len() + change.Put.Len()
		err = p.kernel.Apply(change)
	}
	p.unsure = err != nil
	if err == nil && p.kernel.Gap() {
		p.mend()
		p.kernel.Mended()
	}
	return written, err
}

// tell reports findings about a policy.
func (p *pass) tell(k policy.Key, findings []compiler.Finding) {
	for _, f := range findings {
		if !slices.Contains(p.told[k], f) {
			p.deps.Log.Warn("a policy does not mean what it says", "policy", k, "reason", f.Reason, "message", f.Message)
		}
		p.deps.Event(p.deps.Source.Reference(k), f.Reason, f.Message)
	}
	if len(findings) > 0 {
		p.told[k] = findings
	} else {
		delete(p.told, k)
	}
}
