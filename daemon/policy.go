package daemon

import (
	"log/slog"
	"sync"

	"poplin.dev/poplin/daemon/policy"
	"poplin.dev/poplin/pkg/config"
	"poplin.dev/poplin/pkg/kube"
	"poplin.dev/poplin/pkg/kube/policies"
	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/pkg/metrics"
)

// policyState is what is true of policies; without the module, nothing is.
type policyState struct {
	module *policy.Module
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
func newPolicy(c config.Config, node string, cluster *kube.Client, count *metrics.Metrics, moved func(), log *slog.Logger) (*policyState, []loop.Task, error) {
	conf := policy.Config{Node: node, Verify: verify}
	if !c.Policy.Enabled {
		return nil, nil, policy.Remove(conf, log)
	}
	view, err := cluster.Policies()
	if err != nil {
		return nil, nil, err
	}
	s := &policyState{view: view, count: count, export: count.Policies(), moved: moved}
	s.module = policy.New(policy.Deps{Config: conf, Source: view, Event: cluster.Event, Log: log, Report: s.report})
	return s, []loop.Task{view, s.module}, nil
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

// waiting says what policies wait for.
func (s *policyState) waiting() string {
	if w := s.view.Waiting(); w != "" {
		return w
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !s.past:
		return "the first pass over the kernel"
	case s.last.Err != nil:
		return s.last.Err.Error()
	}
	return s.last.Waiting
}
