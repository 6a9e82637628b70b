package policy

import (
	"fmt"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/policy/peers"
	"poplin.dev/poplin/pkg/policy/ports"
)

// Finding is something a user should mend, to be reported on a policy.
type Finding struct {
	Policy policy.Key
	Reason reason.Reason
	// Message is what is wrong, where, and what was done about it.
	Message string
}

// mostFindings about one policy are told: who mends ten sees the others then.
const mostFindings = 10

// A direction of a NetworkPolicy with more than this permits nothing: whoever
// may write policies of a namespace must not exhaust nodes with one of them.
// What a rule costs grows with the addresses that others tell apart.
const (
	mostRules  = 1000
	mostBlocks = 20000 // and exceptions from blocks
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
		if n, b := len(list), blocks(list); n > mostRules || b > mostBlocks {
			c.find(reason.TooLarge, "spec.%s: %d rules with %d blocks and exceptions are too much, at most %d and %d are served; it permits nothing", d.name, n, b, mostRules, mostBlocks)
			list = policy.Rules{}
		}
		for i := range list {
			list[i] = c.rule(fmt.Sprintf("spec.%s[%d]", d.name, i), list[i])
		}
		*d.rules = &list
	}
	return p, c.all()
}

func blocks(rules policy.Rules) (n int) {
	for _, r := range rules {
		for _, p := range r.Peers {
			if p.Block.IsValid() {
				n += 1 + len(p.Except)
			}
		}
	}
	return n
}

// checkedCluster does the same. A policy of which nobody knows which pods it
// is about is about none.
func checkedCluster(p policy.ClusterPolicy) (policy.ClusterPolicy, []Finding) {
	c := check{key: p.Key}
	if p.Unread != "" {
		c.find(reason.BadPolicy, "%s; the policy is not in force", p.Unread)
		p.Ingress, p.Egress = nil, nil
	}
	c.selector("spec.subject", p.Namespaces)
	p.Ingress, p.Egress = c.clusterRules("ingress", p.Ingress), c.clusterRules("egress", p.Egress)
	return p, c.all()
}

// clusterRules fails closed, as the API demands: of what nobody understands a
// rule that accepts matches nothing, and any other denies everybody. The rest
// keep their places.
func (c *check) clusterRules(direction string, list []policy.ClusterRule) []policy.ClusterRule {
	list = slices.Clone(list)
	for i := range list {
		r := &list[i]
		at := fmt.Sprintf("spec.%s[%d]", direction, i)
		if !slices.Contains([]policy.Action{policy.Accept, policy.Deny, policy.Pass}, r.Action) && r.Unread == "" {
			r.Unread = fmt.Sprintf("action: %q is unknown", r.Action)
		}
		switch {
		case r.Unread == "":
			r.Rule = c.rule(at, r.Rule)
		case r.Action == policy.Accept:
			c.find(reason.BadRule, "%s: %s; the rule accepts nothing", at, r.Unread)
			r.Rule = policy.Rule{Ports: []policy.Port{}}
		default:
			c.find(reason.BadRule, "%s: %s; the rule denies everybody", at, r.Unread)
			r.Action, r.Rule = policy.Deny, policy.Rule{}
		}
	}
	return list
}

// check collects what is wrong with one policy.
type check struct {
	key      policy.Key
	findings []Finding
	untold   int
}

func (c *check) find(why reason.Reason, format string, args ...any) {
	if len(c.findings) == mostFindings-1 {
		c.untold++
		return
	}
	c.findings = append(c.findings, Finding{c.key, why, fmt.Sprintf(format, args...)})
}

func (c *check) all() []Finding {
	if c.untold == 0 {
		return c.findings
	}
	return append(c.findings, Finding{c.key, reason.MoreFindings, fmt.Sprintf("and %d more mistakes like these", c.untold)})
}

func (c *check) selector(at string, s policy.Selector) {
	for _, r := range s {
		if !peers.Valid(r) {
			c.find(reason.BadSelector, "%s: the operator %q of label %q with %d values is none there is, so this selector matches nothing", at, r.Operator, r.Label, len(r.Values))
		}
	}
}

func (c *check) rule(at string, r policy.Rule) policy.Rule {
	r.Peers = slices.Clone(r.Peers)
	for i := range r.Peers {
		c.peer(fmt.Sprintf("%s: peer %d", at, i), &r.Peers[i])
	}
	for i, p := range r.Ports {
		where := fmt.Sprintf("%s: port %d", at, i)
		switch {
		case p.First > p.Last:
			c.find(reason.BadPort, "%s: the range from %d to %d is empty; it matches nothing", where, p.First, p.Last)
		case p.Protocol != 0 && !slices.Contains(ports.Protocols, p.Protocol):
			c.find(reason.BadPort, "%s: %s has no ports; it matches nothing", where, p.Protocol)
		case p.Name != "" && (p.First != 0 || p.Last != 0):
			c.find(reason.BadPort, "%s has a name, %q, and a number; the name counts", where, p.Name)
		}
	}
	return r
}

func (c *check) peer(where string, p *policy.Peer) {
	if p.Unknown {
		c.find(reason.BadPeer, "%s is of a kind that this version does not know; it matches nobody", where)
	}
	p.Block = c.block(where, p.Block)
	p.Except = slices.Clone(p.Except)
	for i, e := range p.Except {
		p.Except[i] = c.block(where, e)
		if !p.Block.Overlaps(p.Except[i]) {
			c.find(reason.BadPeer, "%s: the exception %s is not in %s, so it excepts nothing", where, e, p.Block)
		}
	}
	for _, s := range []*policy.Selector{p.Pods, p.Namespaces, p.Nodes} {
		if s != nil {
			c.selector(where, *s)
		}
	}
}

// block is the addresses that a packet can have: an IPv4 address that is
// written as IPv6 is in none.
func (c *check) block(where string, b netip.Prefix) netip.Prefix {
	if !b.Addr().Is4In6() || b.Bits() < 96 {
		return b
	}
	plain := netip.PrefixFrom(b.Addr().Unmap(), b.Bits()-96)
	c.find(reason.BadPeer, "%s: %s is IPv4 in the notation of IPv6; it is read as %s", where, b, plain)
	return plain
}
