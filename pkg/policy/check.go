package policy

import (
	"fmt"
	"slices"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/policy/ports"
)

// Finding is something a user should mend, to be reported on a policy.
type Finding struct {
	Policy policy.Key
	// Reason is one word for the Event's reason, Message what is wrong,
	// where, and what was done about it.
	Reason, Message string
}

// Reasons of findings.
const (
	BadPort     = "BadPort"
	BadPeer     = "BadPeer"
	BadSelector = "BadSelector"
)

// checked leaves out what cannot match, and says so.
func checked(p policy.NetworkPolicy) (policy.NetworkPolicy, []Finding) {
	c := check{key: p.Key}
	c.selector("spec.podSelector", p.Pods)
	for _, d := range []struct {
		name  string
		rules **policy.Rules
	}{{"ingress", &p.Ingress}, {"egress", &p.Egress}} {
		if *d.rules == nil {
			continue
		}
		list := slices.Clone(**d.rules)
		for i := range list {
			list[i] = c.rule(fmt.Sprintf("spec.%s[%d]", d.name, i), list[i], false)
		}
		*d.rules = &list
	}
	return p, c.findings
}

// checkedCluster does the same. Where a rule that denies has a peer that is
// not understood, it denies everybody.
func checkedCluster(p policy.ClusterPolicy) (policy.ClusterPolicy, []Finding) {
	c := check{key: p.Key}
	c.selector("spec.subject", p.Namespaces)
	for _, d := range []struct {
		name  string
		rules *[]policy.ClusterRule
	}{{"ingress", &p.Ingress}, {"egress", &p.Egress}} {
		list := slices.Clone(*d.rules)
		for i := range list {
			list[i].Rule = c.rule(fmt.Sprintf("spec.%s[%d]", d.name, i), list[i].Rule, list[i].Action == policy.Deny)
		}
		*d.rules = list
	}
	return p, c.findings
}

// check collects what is wrong with one policy.
type check struct {
	key      policy.Key
	findings []Finding
}

func (c *check) find(reason, format string, args ...any) {
	c.findings = append(c.findings, Finding{c.key, reason, fmt.Sprintf(format, args...)})
}

func (c *check) selector(at string, s policy.Selector) {
	for _, r := range s {
		if !slices.Contains([]policy.Operator{policy.In, policy.NotIn, policy.Exists, policy.DoesNotExist}, r.Operator) {
			c.find(BadSelector, "%s: the operator %q of label %q is unknown, so this selector matches nothing", at, r.Operator, r.Label)
		}
	}
}

func (c *check) rule(at string, r policy.Rule, denies bool) policy.Rule {
	for i, p := range r.Peers {
		where := fmt.Sprintf("%s: peer %d", at, i)
		switch {
		case p.Unknown && denies:
			c.find(BadPeer, "%s is of a kind that this version does not know; the rule denies everybody", where)
			r.Peers = nil
		case p.Unknown:
			c.find(BadPeer, "%s is of a kind that this version does not know; it matches nobody", where)
		}
		for _, e := range p.Except {
			if p.Block.Addr().BitLen() != e.Addr().BitLen() {
				c.find(BadPeer, "%s: the exception %s is of another address family than %s, so it excepts nothing", where, e, p.Block)
			}
		}
		for _, s := range []*policy.Selector{p.Pods, p.Namespaces, p.Nodes} {
			if s != nil {
				c.selector(where, *s)
			}
		}
	}
	for i, p := range r.Ports {
		where := fmt.Sprintf("%s: port %d", at, i)
		switch {
		case p.First > p.Last:
			c.find(BadPort, "%s: the range from %d to %d is empty; it matches nothing", where, p.First, p.Last)
		case p.Protocol != 0 && !slices.Contains(ports.Protocols, p.Protocol):
			c.find(BadPort, "%s: %s has no ports; it matches nothing", where, p.Protocol)
		case p.Name != "" && (p.First != 0 || p.Last != 0):
			c.find(BadPort, "%s has a name, %q, and a number; the name counts", where, p.Name)
		}
	}
	return r
}
