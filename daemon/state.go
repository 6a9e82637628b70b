package daemon

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"poplin.dev/poplin/daemon/conflist"
	"poplin.dev/poplin/daemon/overlay"
	"poplin.dev/poplin/daemon/reach"
	"poplin.dev/poplin/daemon/snapshot"
	"poplin.dev/poplin/daemon/status"
	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/apply/privilege"
	"poplin.dev/poplin/pkg/config"
	"poplin.dev/poplin/pkg/kube"
	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/pkg/metrics"
	"poplin.dev/poplin/pkg/version"
)

// state is what the tasks reported last; it carries it from one to the next
// and answers questions about it.
type state struct {
	node     string
	started  time.Time
	settings config.Config
	socket   string
	cluster  *kube.Client
	contact  *contact
	known    *snapshot.Keeper
	network  *conflist.Module
	path     *reach.Module
	pulse    *loop.Pulse
	answers  *status.Module
	count    *metrics.Metrics
	vips     *servicesState // nil without Services
	verdicts *policyState   // nil without policies

	mu            sync.Mutex
	fabric        overlay.State
	pass          time.Time // zero before the overlay's first
	file          conflist.State
	pending       []string
	configProblem error
}

func newState(cfg Config, settings config.Config, cluster *kube.Client, known *snapshot.Keeper, heard *contact, count *metrics.Metrics) *state {
	return &state{node: cfg.NodeName, started: time.Now(), settings: settings, socket: cfg.Socket, cluster: cluster, known: known, contact: heard, count: count, pulse: loop.NewPulse()}
}

// overlay is told of every pass over the kernel.
func (s *state) overlay(o overlay.State) {
	s.mu.Lock()
	s.fabric, s.pass = o, time.Now()
	s.mu.Unlock()
	s.count.Pass("overlay", o.Took, o.Err)
	s.count.Operations(o.Result.Added, o.Result.Changed, o.Result.Removed, o.Result.Failed)
	repaired(s.count, "overlay", o.Repairs, o.Result.Added+o.Result.Changed+o.Result.Removed)
	s.count.Peers.Set(float64(o.Peers))
	if c := o.Checksums; c.Why != "" {
		s.count.ChecksumOffload.Set(number(!c.Software))
		s.count.ChecksumFaulty.Set(number(c.Faulty))
	}
	s.count.Refused.Set(float64(len(o.Refused) + len(s.cluster.Skipped())))
	if o.Unfit == "" && o.InPlace {
		s.path.Set(ways(o))
	}
	s.offer()
	s.exportReady()
	s.tell(aboutFabric(o, s.cluster.Skipped(), time.Since(s.started)))
}

// offer tells the runtime of the network, once pods can start in it: with
// policies, none does before it is known which ones are isolated.
func (s *state) offer() {
	s.mu.Lock()
	o := s.fabric
	s.mu.Unlock()
	n := conflist.Node{PodCIDRs: o.Self.PodCIDRs, Addresses: o.Self.Addresses, MTU: o.MTU}
	if s.verdicts != nil {
		n.PolicySocket = s.socket
	}
	switch {
	case o.Unfit != "":
		s.network.Hold(o.Unfit)
	case o.InPlace && (s.verdicts == nil || s.verdicts.gate.Saved()):
		s.network.Set(n)
	}
}

// conflist is told of every look at the conflist.
func (s *state) conflist(c conflist.State) {
	s.mu.Lock()
	s.file = c
	s.mu.Unlock()
	s.count.Pass("conflist", c.Took, c.Err)
	s.count.ForeignConfig.Set(float64(len(c.Preferred)))
	if c.Wrote {
		s.count.ConflistWrites.Inc()
	}
	s.exportReady()
	self, _ := s.known.Self()
	s.tell(aboutConflist(self, c))
}

// config is told of every change of the configuration file.
func (s *state) config(pending []string, err error) {
	s.mu.Lock()
	s.pending, s.configProblem = pending, err
	s.mu.Unlock()
	s.count.ConfigPending.Set(number(len(pending) > 0))
	s.count.ConfigInvalid.Set(number(err != nil))
	self, _ := s.known.Self()
	s.tell(aboutConfig(self, err))
}

// addresses are this node's own.
func (s *state) addresses() []netip.Addr {
	self, _ := s.known.Self()
	return self.Addresses
}

// ends is told of every look at the node's ends of pods' links.
func (s *state) ends(took time.Duration, cause diff.Cause, restored int, err error) {
	s.count.Pass("podlinks", took, err)
	repaired(s.count, "podlinks", cause, restored)
}

// tasks are the parts of the daemon that pods depend on, with what each waits
// for.
func (s *state) tasks() []status.Task {
	tasks := []status.Task{
		{Name: s.cluster.String(), Waiting: s.clusterWaits()},
		{Name: "overlay", Waiting: s.overlayWaits()},
		{Name: s.network.String(), Waiting: s.network.Waiting()},
		{Name: s.path.String(), Waiting: s.path.Waiting()},
	}
	if s.vips != nil {
		tasks = append(tasks, status.Task{Name: s.vips.module.String(), Waiting: s.vips.waiting()})
	}
	if s.verdicts != nil {
		tasks = append(tasks, status.Task{Name: s.verdicts.module.String(), Waiting: s.verdicts.waiting()})
	}
	return append(tasks, status.Task{Name: "progress", Waiting: s.hangs(slow)})
}

// clusterWaits adds how old that is on which the node's network rests meanwhile.
func (s *state) clusterWaits() string {
	waits := s.cluster.Waiting()
	if since := s.known.Stale(); !since.IsZero() {
		waits += fmt.Sprintf("; until then everything is as it was known at %s, which may be stale", since.Format(time.RFC3339))
	}
	return waits
}

func (s *state) overlayWaits() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch o := s.fabric; {
	case s.pass.IsZero():
		return "a complete view of the cluster"
	case len(o.Strays) > 0:
		return fmt.Sprintf("pods with addresses of ranges that this node does not have any more to be deleted, %s among them", o.Strays[0])
	case o.InPlace:
		return ""
	case o.Err != nil:
		return o.Err.Error()
	}
	return "the device, this node's NodeNetwork and every known peer to be in place"
}

func ready(tasks []status.Task) bool {
	return !slices.ContainsFunc(tasks, func(t status.Task) bool { return t.Waiting != "" })
}

func (s *state) exportReady() { s.count.Ready.Set(number(ready(s.tasks()))) }

func (s *state) report() status.Report {
	tasks := s.tasks()
	r := status.Report{
		Node: s.node, Version: version.Version, Commit: version.Commit, Started: s.started,
		Ready: ready(tasks), APIServer: s.cluster.Server(),
		// What answers this is no condition for pods.
		Tasks: append(tasks, status.Task{Name: s.answers.String(), Waiting: s.answers.Waiting()}),
	}
	addresses := []string{s.settings.Health.Address, s.settings.Metrics.Address, s.socket}
	if s.settings.Services.Enabled {
		addresses = append(addresses, s.settings.Services.Healthz.Address)
	}
	for _, address := range addresses {
		if address != "" {
			r.Listeners = append(r.Listeners, address)
		}
	}
	var err error
	if r.Capabilities, err = privilege.Capabilities(); err != nil {
		r.Capabilities = []string{err.Error()}
	}
	if s.vips != nil {
		r.Services = s.vips.status()
	}
	r.Silent = s.path.State().Silent
	skipped := s.cluster.Skipped()
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.fabric
	r.Mode, r.Checksums = s.settings.Overlay.Mode, o.Checksums.Why
	r.PodCIDRs, r.Addresses, r.MTU, r.Peers = o.Self.PodCIDRs, o.Self.Addresses, o.MTU, o.Peers
	if o.Underlay.Link != "" {
		r.Underlay = &status.Underlay{Link: o.Underlay.Link, Addr: o.Underlay.Addr, MTU: o.Underlay.MTU}
	}
	for _, f := range o.Refused {
		r.Refused = append(r.Refused, status.Refusal{Node: f.Node, Reason: f.Reason})
	}
	for _, name := range slices.Sorted(maps.Keys(skipped)) {
		r.Refused = append(r.Refused, status.Refusal{Node: name, Reason: skipped[name]})
	}
	r.Conflist, r.Preferred, r.Pending = s.file.Path, s.file.Preferred, s.pending
	if s.configProblem != nil {
		r.ConfigError = s.configProblem.Error()
	}
	return r
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
