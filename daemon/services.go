package daemon

import (
	"log/slog"
	"sync"
	"time"

	"poplin.dev/poplin/daemon/services"
	"poplin.dev/poplin/daemon/services/health"
	"poplin.dev/poplin/daemon/snapshot"
	"poplin.dev/poplin/daemon/status"
	"poplin.dev/poplin/pkg/apply/sysctl"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/cluster/service"
	kubeservices "poplin.dev/poplin/pkg/kube/services"
	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/pkg/metrics"
)

const (
	// verify is how often all Services are compiled, and the kernel read,
	// again: where others can change our table, events tell of it.
	verify = 5 * time.Minute
	// overdue is how long a change may wait for the kernel before load
	// balancers are told to turn to another node, as in kube-proxy.
	overdue = time.Minute
)

// servicesState is what is true of Services; without the module, nothing is.
type servicesState struct {
	module *services.Module
	view   *kubeservices.View
	known  *snapshot.Keeper
	count  *metrics.Metrics
	export *metrics.Services
	moved  func() // readiness may have changed

	mu   sync.Mutex
	last services.State
	past bool // there was a pass
}

// newServices makes the tasks that serve Services, or removes what an earlier
// daemon left of them. note is told of changes of the node's settings.
func newServices(now *state, sysctlRoot string, note func(sysctl.Change), log *slog.Logger) (*servicesState, []loop.Task, error) {
	c := now.settings
	ranges, err := c.Services.NodePortRanges()
	if err != nil {
		return nil, nil, err
	}
	track := c.Services.Conntrack
	conf := services.Config{
		NodePorts: ranges, ExternalIPs: c.Services.ExternalIPCIDRs, OverlayPort: uint16(c.Overlay.Port),
		SysctlRoot: sysctlRoot, Verify: verify,
		Conntrack: services.Conntrack{
			MaxPerCore: track.MaxPerCore, Min: track.Min, TCPBeLiberal: track.TCPBeLiberal,
			TCPEstablished: time.Duration(track.TCPEstablishedTimeout), TCPCloseWait: time.Duration(track.TCPCloseWaitTimeout),
			UDP: time.Duration(track.UDPTimeout), UDPStream: time.Duration(track.UDPStreamTimeout),
		},
	}
	if !c.Services.Enabled {
		return nil, nil, services.Remove(conf, log)
	}
	s := &servicesState{known: now.known, count: now.count, export: now.count.Services(), moved: now.exportReady}
	if s.view, err = now.cluster.Services(); err != nil {
		return nil, nil, err
	}
	answers := health.New(health.Deps{
		Healthz: c.Services.Healthz.Address, Node: s.node, Alone: func() { s.module.SetAlone() }, Log: log,
		Failed: func(key service.Key, message string) {
			now.cluster.Event(s.view.Reference(key, false), reason.FailedToStartServiceHealthcheck, message)
		},
	})
	s.module = services.New(services.Deps{
		Config: conf, Source: s.view, Cluster: now.known, Health: answers, Event: now.cluster.Event,
		Note: note, Log: log, Report: s.report, Changed: s.export.Changed,
	})
	return s, []loop.Task{answers, s.view, s.module}, nil
}

// report is told of every pass.
func (s *servicesState) report(now services.State) {
	s.mu.Lock()
	s.last, s.past = now, true
	s.mu.Unlock()
	s.count.Pass("services", now.Took, now.Err)
	repaired(s.count, "services", now.Repairs, now.Written)
	s.export.Pass(now.Took, now.Full, now.Err)
	s.export.Programmed(now.Programmed)
	s.export.Ended(now.Ended)
	s.export.Starved(now.Starved.Internal, now.Starved.External)
	s.export.Elements.Set(float64(now.Elements))
	s.export.Findings.Set(float64(now.Findings))
	s.export.Problems.Set(float64(now.Problems))
	s.moved()
}

// waiting says what Services wait for.
func (s *servicesState) waiting() string {
	view := s.view.Waiting()
	s.mu.Lock()
	defer s.mu.Unlock()
	return waiting(view, s.past, s.last.Err, s.last.Waiting)
}

// waiting says what a module waits for: what its view does, the first pass, what
// the last one failed with or said that it waits for; empty is nothing.
func waiting(view string, past bool, failure error, last string) string {
	switch {
	case view != "":
		return view
	case !past:
		return "the first pass over the kernel"
	case failure != nil:
		return failure.Error()
	}
	return last
}

// status is the module for people.
func (s *servicesState) status() *status.Services {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &status.Services{Count: s.last.Services, Elements: s.last.Elements, Findings: s.last.Findings, Problems: s.last.Problems}
}

// node is what load balancers are told.
func (s *servicesState) node() health.Node {
	self, _ := s.known.Self()
	pending, updated := s.module.Healthy()
	return health.Node{
		Healthy: !updated.IsZero() && (pending.IsZero() || time.Since(pending) < overdue),
		Updated: updated, Eligible: !self.Leaving, Addresses: s.module.NodePortAddresses(), Families: self.Addresses,
	}
}
