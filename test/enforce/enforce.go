// Package enforce runs what of the daemon enforces policies and answers the CNI
// plugin, in a network namespace of a test's. Inputs are objects as the API
// server would have them; outputs are the kernel's table there and a socket. It
// refuses to know an API server.
package enforce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"poplin.dev/poplin/daemon/isolation"
	daemon "poplin.dev/poplin/daemon/policy"
	"poplin.dev/poplin/daemon/status"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/policy/claims"
	file "poplin.dev/poplin/plugins/isolation"
)

// Objects are what the API server has; the zero value has none, and nobody has
// read it completely before Complete.
type Objects struct {
	mu         sync.Mutex
	complete   bool
	pods       map[policy.Key]policy.Pod
	namespaces map[policy.Key]policy.Namespace
	policies   map[policy.Key]policy.NetworkPolicy
	cluster    map[policy.Key]policy.ClusterPolicy
	nodes      map[policy.Key]policy.Node
	changed    []func(string, []policy.Key)
}

// NewObjects are none, completely known.
func NewObjects() *Objects {
	return &Objects{
		complete: true, pods: map[policy.Key]policy.Pod{}, namespaces: map[policy.Key]policy.Namespace{}, policies: map[policy.Key]policy.NetworkPolicy{},
		cluster: map[policy.Key]policy.ClusterPolicy{}, nodes: map[policy.Key]policy.Node{},
	}
}

// SetPod makes or changes a pod.
func (o *Objects) SetPod(p policy.Pod) { set(o, "pods", o.pods, p.Key, &p) }

// DeletePod ends it.
func (o *Objects) DeletePod(k policy.Key) { set(o, "pods", o.pods, k, nil) }

// SetNamespace makes or changes a namespace.
func (o *Objects) SetNamespace(n policy.Namespace) {
	set(o, "namespaces", o.namespaces, policy.Key{Name: n.Name}, &n)
}

// SetPolicy makes or changes a policy.
func (o *Objects) SetPolicy(p policy.NetworkPolicy) { set(o, "networkpolicies", o.policies, p.Key, &p) }

// DeletePolicy ends it.
func (o *Objects) DeletePolicy(k policy.Key) { set(o, "networkpolicies", o.policies, k, nil) }

// SetClusterPolicy makes or changes a cluster's policy. What names nodes waits
// until there are some.
func (o *Objects) SetClusterPolicy(p policy.ClusterPolicy) {
	set(o, "clusternetworkpolicies", o.cluster, p.Key, &p)
}

// SetNodes makes nodes known, all at once.
func (o *Objects) SetNodes(list ...policy.Node) {
	o.mu.Lock()
	for _, n := range list {
		o.nodes[policy.Key{Name: n.Name}] = n
	}
	o.mu.Unlock()
	o.tellAll()
}

func set[V any](o *Objects, resource string, all map[policy.Key]V, k policy.Key, v *V) {
	o.mu.Lock()
	if v == nil {
		delete(all, k)
	} else {
		all[k] = *v
	}
	told := slices.Clone(o.changed)
	o.mu.Unlock()
	for _, f := range told {
		f(resource, []policy.Key{k})
	}
}

// The methods below implement the module's Source.

// Complete implements Source.
func (o *Objects) Complete() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.complete
}

// SetComplete says whether everything was read.
func (o *Objects) SetComplete(complete bool) {
	o.mu.Lock()
	o.complete = complete
	o.mu.Unlock()
	o.tellAll()
}

func (o *Objects) tellAll() {
	o.mu.Lock()
	told := slices.Clone(o.changed)
	o.mu.Unlock()
	for _, f := range told {
		f("", nil)
	}
}

// Keys implements Source.
func (o *Objects) Keys(resource string) []policy.Key {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch resource {
	case "pods":
		return slices.Collect(maps.Keys(o.pods))
	case "namespaces":
		return slices.Collect(maps.Keys(o.namespaces))
	case "networkpolicies":
		return slices.Collect(maps.Keys(o.policies))
	case "clusternetworkpolicies":
		return slices.Collect(maps.Keys(o.cluster))
	case "nodes":
		return slices.Collect(maps.Keys(o.nodes))
	}
	return nil
}

// Pod implements Source.
func (o *Objects) Pod(k policy.Key) (policy.Pod, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p, found := o.pods[k]
	return p, found
}

// Namespace implements Source.
func (o *Objects) Namespace(k policy.Key) (policy.Namespace, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, found := o.namespaces[k]
	return n, found
}

// Node implements Source.
func (o *Objects) Node(k policy.Key) (policy.Node, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, found := o.nodes[k]
	return n, found
}

// ClusterPolicy implements Source.
func (o *Objects) ClusterPolicy(k policy.Key) (p policy.ClusterPolicy, found, waits bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p, found = o.cluster[k]
	for _, r := range p.Egress {
		waits = waits || len(o.nodes) == 0 && slices.ContainsFunc(r.Peers, func(p policy.Peer) bool { return p.Nodes != nil })
	}
	return p, found, waits
}

// Policy implements Source.
func (o *Objects) Policy(k policy.Key) (policy.NetworkPolicy, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p, found := o.policies[k]
	return p, found
}

// Reference implements Source.
func (o *Objects) Reference(k policy.Key) cluster.Reference {
	r := cluster.Reference{Kind: "NetworkPolicy", Namespace: k.Namespace, Name: k.Name}
	if k.Namespace == "" {
		r.Kind = "ClusterNetworkPolicy"
	}
	return r
}

// Subscribe implements Source.
func (o *Objects) Subscribe(changed func(string, []policy.Key)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.changed = append(o.changed, changed)
}

// Config says where things are.
type Config struct {
	// Node is the node's name.
	Node string
	// Network is the name of the network that the plugin makes pods of.
	Network string
	// Dir holds the node's files: the socket in run, the state in state.
	Dir string
	// In runs a function in the node's network namespace, on a thread that
	// stays there.
	In  func(func() error) error
	Log *slog.Logger
}

// Socket is where the CNI plugin asks.
func (c Config) Socket() string { return filepath.Join(c.Dir, "run", "poplind.sock") }

// StateDir is what the plugin's configuration calls so.
func (c Config) StateDir() string { return filepath.Join(c.Dir, "state") }

// File is what the plugin reads when nobody answers.
func (c Config) File() string { return filepath.Join(c.StateDir(), file.File) }

// Daemon enforces.
type Daemon struct {
	stop context.CancelFunc
	done sync.WaitGroup
	mu   sync.Mutex
	last daemon.State
	errs []error
}

// ready is how long the first pass may take.
const ready = 30 * time.Second

// Start returns once all policies are in the kernel, or the objects are known
// not to be complete, and the socket and the file are there.
func Start(c Config, objects *Objects) (*Daemon, error) {
	ctx, stop := context.WithCancel(context.Background())
	d := &Daemon{stop: stop}
	var module *daemon.Module
	gate := isolation.New(isolation.Deps{
		Dir: c.StateDir(), Claim: func(claim claims.Claim) <-chan struct{} { return module.Claim(claim) },
		Waiting: d.waiting, Saved: func() {}, Log: c.Log,
	})
	module = daemon.New(daemon.Deps{
		Config: daemon.Config{Node: c.Node, Verify: time.Hour}, Source: objects, Event: func(cluster.Reference, reason.Reason, string) {},
		Log: c.Log, Namespaces: gate.Set, Report: d.report,
	})
	answers := status.New(status.Deps{
		Socket: c.Socket(), Isolation: gate, Exported: http.NotFoundHandler(), Report: func() status.Report { return status.Report{} }, Log: c.Log,
	})
	recalled := make(chan error, 1)
	d.run(func() error {
		return c.In(func() error {
			err := gate.Recall(c.Network)
			if recalled <- err; err != nil {
				return err
			}
			return module.Run(ctx)
		})
	})
	d.run(func() error { return gate.Run(ctx) })
	d.run(func() error { return answers.Run(ctx) })
	if err := <-recalled; err != nil {
		return nil, errors.Join(err, d.Stop())
	}
	for deadline := time.Now().Add(ready); ; time.Sleep(time.Millisecond) {
		_, err := status.Read(ctx, c.Socket())
		waits := err != nil || objects.Complete() && (!gate.Saved() || !isReady(module))
		if !waits {
			return d, nil
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("policies are not enforced within %v: %s", ready, d.waiting()), err, d.Stop())
		}
	}
}

func isReady(m *daemon.Module) bool {
	select {
	case <-m.Ready():
		return true
	default:
		return false
	}
}

func (d *Daemon) run(task func() error) {
	d.done.Go(func() {
		if err := task(); err != nil {
			d.mu.Lock()
			d.errs = append(d.errs, err)
			d.mu.Unlock()
		}
	})
}

func (d *Daemon) report(s daemon.State) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.last = s
}

func (d *Daemon) waiting() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last.Err != nil {
		return d.last.Err.Error()
	}
	return d.last.Waiting
}

// Stop ends it like a killed daemon: the kernel holds what it held.
func (d *Daemon) Stop() error {
	d.stop()
	d.done.Wait()
	return errors.Join(d.errs...)
}
