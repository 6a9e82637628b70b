package policies_test

import (
	"slices"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/policy"
)

// lie is a compiler that gets one thing wrong: it is fed objects in which
// that thing is not so, while the oracle sees the true ones.
type lie struct {
	keepsPods, keepsPolicies bool // that were deleted
	pod                      func(*policy.Pod)
	policy                   func(*policy.NetworkPolicy)
	cluster                  func(*policy.ClusterPolicy)
	rule                     func(*policy.Rule)
}

func (l lie) aboutPod(p policy.Pod) policy.Pod {
	if l.pod != nil {
		l.pod(&p)
	}
	return p
}

func (l lie) aboutPolicy(p policy.NetworkPolicy) policy.NetworkPolicy {
	if l.policy != nil {
		l.policy(&p)
	}
	if l.rule != nil {
		p.Ingress, p.Egress = l.aboutRules(p.Ingress), l.aboutRules(p.Egress)
	}
	return p
}

func (l lie) aboutRules(rules *policy.Rules) *policy.Rules {
	if rules == nil {
		return nil
	}
	list := slices.Clone(*rules)
	for i := range list {
		list[i].Peers, list[i].Ports = slices.Clone(list[i].Peers), slices.Clone(list[i].Ports)
		l.rule(&list[i])
	}
	return &list
}

func (l lie) aboutCluster(c policy.ClusterPolicy) policy.ClusterPolicy {
	if l.cluster != nil {
		c.Ingress, c.Egress = slices.Clone(c.Ingress), slices.Clone(c.Egress)
		l.cluster(&c)
	}
	return c
}

func eachPeer(r *policy.Rule, f func(*policy.Peer)) {
	for i := range r.Peers {
		f(&r.Peers[i])
	}
}

func eachPort(r *policy.Rule, f func(*policy.Port)) {
	for i := range r.Ports {
		f(&r.Ports[i])
	}
}

// TestEveryLieIsFound: the random test would notice a compiler with any of
// these faults.
func TestEveryLieIsFound(t *testing.T) {
	everybody := policy.Selector{}
	for name, l := range map[string]lie{
		"deleted pods stay":                       {keepsPods: true},
		"deleted policies stay":                   {keepsPolicies: true},
		"labels of pods ignored":                  {pod: func(p *policy.Pod) { p.Labels = nil }},
		"one family only":                         {pod: func(p *policy.Pod) { p.Addresses = p.Addresses[:min(1, len(p.Addresses))] }},
		"named ports of pods ignored":             {pod: func(p *policy.Pod) { p.Ports = nil }},
		"every pod is on this node":               {pod: func(p *policy.Pod) { p.Node = here }},
		"the oldest claimant has an address":      {pod: func(p *policy.Pod) { p.Created = began.Add(-p.Created.Sub(began)) }},
		"an empty direction is a missing one":     {policy: func(p *policy.NetworkPolicy) { dropEmpty(&p.Ingress); dropEmpty(&p.Egress) }},
		"a missing direction is an empty one":     {policy: func(p *policy.NetworkPolicy) { addEmpty(&p.Ingress); addEmpty(&p.Egress) }},
		"podSelector ignored":                     {policy: func(p *policy.NetworkPolicy) { p.Pods = everybody }},
		"exceptions ignored":                      {rule: func(r *policy.Rule) { eachPeer(r, func(p *policy.Peer) { p.Except = nil }) }},
		"namespaceSelector alone in both":         {rule: func(r *policy.Rule) { eachPeer(r, func(p *policy.Peer) { forgetPods(p) }) }},
		"a missing namespaceSelector is any":      {rule: func(r *policy.Rule) { eachPeer(r, func(p *policy.Peer) { anyNamespace(p) }) }},
		"endPort ignored":                         {rule: func(r *policy.Rule) { eachPort(r, func(p *policy.Port) { p.Last = p.First }) }},
		"protocols confused":                      {rule: func(r *policy.Rule) { eachPort(r, func(p *policy.Port) { p.Protocol = 6 }) }},
		"names of ports ignored":                  {rule: func(r *policy.Rule) { eachPort(r, func(p *policy.Port) { p.Name = "" }) }},
		"the tiers confused":                      {cluster: func(c *policy.ClusterPolicy) { c.Tier = policy.Admin }},
		"priorities ignored":                      {cluster: func(c *policy.ClusterPolicy) { c.Priority = 0 }},
		"Pass accepts":                            {cluster: func(c *policy.ClusterPolicy) { replace(c, policy.Pass, policy.Accept) }},
		"Pass is nothing":                         {cluster: func(c *policy.ClusterPolicy) { remove(c, policy.Pass) }},
		"Deny passes":                             {cluster: func(c *policy.ClusterPolicy) { replace(c, policy.Deny, policy.Pass) }},
		"the subject's pods ignored":              {cluster: func(c *policy.ClusterPolicy) { c.Pods = nil }},
		"nodes as peers ignored":                  {cluster: func(c *policy.ClusterPolicy) { forgetNodes(c) }},
		"a rule that is not understood is passed": {cluster: func(c *policy.ClusterPolicy) { forgetUnread(c) }},
		"such a rule means what is left of it":    {cluster: func(c *policy.ClusterPolicy) { eachRule(c, func(r *policy.ClusterRule) { r.Unread = "" }) }},
		"an unknown action is none":               {cluster: func(c *policy.ClusterPolicy) { remove(c, "Log") }},
		"a policy about who knows whom holds":     {cluster: func(c *policy.ClusterPolicy) { c.Unread = "" }},
	} {
		t.Run(name, func(t *testing.T) {
			until := time.Now().Add(time.Minute)
			for s := *seed; time.Now().Before(until); s++ {
				r := start(s, l)
				for range 400 {
					r.step()
					if r.differ(20) != "" {
						return
					}
				}
			}
			t.Error("not noticed")
		})
	}
}

func dropEmpty(r **policy.Rules) {
	if *r != nil && len(**r) == 0 {
		*r = nil
	}
}

func addEmpty(r **policy.Rules) {
	if *r == nil {
		*r = &policy.Rules{}
	}
}

func forgetPods(p *policy.Peer) {
	if p.Namespaces != nil {
		p.Pods = nil
	}
}

func anyNamespace(p *policy.Peer) {
	if p.Namespaces == nil && !p.Block.IsValid() {
		p.Namespaces = &policy.Selector{}
	}
}

func eachRule(c *policy.ClusterPolicy, f func(*policy.ClusterRule)) {
	for _, list := range [][]policy.ClusterRule{c.Ingress, c.Egress} {
		for i := range list {
			f(&list[i])
		}
	}
}

func replace(c *policy.ClusterPolicy, from, to policy.Action) {
	eachRule(c, func(r *policy.ClusterRule) {
		if r.Action == from {
			r.Action = to
		}
	})
}

func remove(c *policy.ClusterPolicy, a policy.Action) {
	c.Ingress = slices.DeleteFunc(c.Ingress, func(r policy.ClusterRule) bool { return r.Action == a })
	c.Egress = slices.DeleteFunc(c.Egress, func(r policy.ClusterRule) bool { return r.Action == a })
}

func forgetNodes(c *policy.ClusterPolicy) {
	eachRule(c, func(r *policy.ClusterRule) {
		if r.Peers != nil {
			r.Peers = slices.DeleteFunc(slices.Clone(r.Peers), func(p policy.Peer) bool { return p.Nodes != nil })
		}
	})
}

func forgetUnread(c *policy.ClusterPolicy) {
	for _, list := range []*[]policy.ClusterRule{&c.Ingress, &c.Egress} {
		*list = slices.DeleteFunc(*list, func(r policy.ClusterRule) bool { return r.Unread != "" })
	}
}
