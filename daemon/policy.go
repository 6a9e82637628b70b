package daemon

import (
	"errors"
	"log/slog"
	"sync"

	"poplin.dev/poplin/daemon/isolation"
	"poplin.dev/poplin/daemon/policy"
	"poplin.dev/poplin/pkg/apply/permit"
	"poplin.dev/poplin/pkg/config"
	"poplin.dev/poplin/pkg/kube/policies"
	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/pkg/metrics"
	"poplin.dev/poplin/pkg/policy/claims"
)

// policyState is what is true of policies; without the module, nothing is.
type policyState struct {
	module *policy.Module
	gate   *isolation.Module
	view   *policies.View
	count  *metrics.Metrics
	export *metrics.Policies
	moved  func() // readiness may have changed

	mu   sync.Mutex
	last policy.State
	past bool // there was a pass
}

// newPolicy makes the tasks that enforce policies, or removes what an earlier
// daemon left of them.
func newPolicy(now *state, stateDir string, log *slog.Logger) (*policyState, []loop.Task, error) {
	conf := policy.Config{Node: now.node, Verify: verify, Keep: now.settings.Policy.EstablishedConnections == config.ConnectionsKept}
	if !now.settings.Policy.Enabled {
		return nil, nil, errors.Join(policy.Remove(conf, log), isolation.Remove(stateDir))
	}
	if now.settings.Policy.LogDrops {
		conf.LogDrops = now.settings.Policy.LogDropsPerSecond
	}
	view, err := now.cluster.Policies()
	if err != nil {
		return nil, nil, err
	}
	s := &policyState{view: view, count: now.count, export: now.count.Policies(), moved: now.exportReady}
	s.gate = isolation.New(isolation.Deps{
		Dir: stateDir, Claim: func(c claims.Claim) <-chan struct{} { return s.module.Claim(c) },
		Waiting: s.waiting, Saved: now.offer, Log: log,
	})
	s.module = policy.New(policy.Deps{
		Config: conf, Source: view, Event: now.cluster.Event, Log: log, Namespaces: s.gate.Set, Report: s.report,
		Dropped: s.dropped, Overrun: s.export.Overruns.Inc,
	})
	now.count.PolicyDrops(s.drops(log))
	if err := s.gate.Recall(now.settings.CNI.Name); err != nil {
		log.Warn("until the API server has pods' addresses, policies do not hold for those that start now", "error", err)
	}
	return s, []loop.Task{view, s.module, s.gate}, nil
}

// report is told of every pass.
func (s *policyState) report(now policy.State) {
	s.mu.Lock()
	s.last, s.past = now, true
	s.mu.Unlock()
	s.count.Pass("policy", now.Took, now.Err)
	repaired(s.count, "policy", now.Repairs, now.Written)
	s.export.Policies.Set(float64(now.Policies))
	s.export.Isolated.Set(float64(now.Isolated))
	s.export.Elements.Set(float64(now.Elements))
	s.export.Findings.Set(float64(now.Findings))
	s.moved()
}

// dropped is told of packets that policies dropped.
func (s *policyState) dropped(d policy.Drop) {
	for _, p := range d.Sources {
		s.export.Logged(d.Direction.String(), p.Kind, p.Namespace, p.Name, d.Packets)
	}
}

// drops reads what the kernel dropped, by direction, when it is asked for.
func (s *policyState) drops(log *slog.Logger) func() map[string]uint64 {
	return func() map[string]uint64 {
		list, err := permit.Drops(0)
		if err != nil {
			log.Debug("cannot read the counters of policies", "error", err)
		}
		return list
	}
}

// waiting says what policies wait for.
func (s *policyState) waiting() string {
	view := s.view.Waiting()
	s.mu.Lock()
	defer s.mu.Unlock()
	return waiting(view, s.past, s.last.Err, s.last.Waiting)
}
