package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/policy/peers"
	"poplin.dev/poplin/pkg/policy/ports"
	"poplin.dev/poplin/pkg/policy/verdict"
)

// profile returns the profile of a pod, shared with others that have the same.
func (t *Table) profile(p *pod, d verdict.Direction) *verdict.Profile {
	next := verdict.NewProfile(d, t.statements(p, d))
	if known := t.profiles[next.Key]; known != nil {
		return known
	}
	t.profiles[next.Key] = next
	next.EachGroup(func(g *peers.Group) { g.Users++ })
	return next
}

func (t *Table) dropProfile(p *verdict.Profile) {
	if p.Users--; p.Users == 0 {
		delete(t.profiles, p.Key)
		p.EachGroup(func(g *peers.Group) { g.Users-- })
	}
}

// statements are all that policies say about a pod, in the order in which
// they are asked.
func (t *Table) statements(p *pod, d verdict.Direction) []verdict.Statement {
	cluster := t.clusterPoliciesOf(p)
	list := t.ofTier(verdict.Admin, cluster, p, d)
	before := len(list)
	for _, k := range slices.SortedFunc(maps.Keys(t.policies[p.Namespace]), policy.Key.Compare) {
		n := t.policies[p.Namespace][k]
		rules := n.Ingress
		if d == verdict.Egress {
			rules = n.Egress
		}
		if rules == nil || !peers.Matches(n.Pods, p.Labels) {
			continue
		}
		s := verdict.Statement{Tier: verdict.Network, Policy: k}
		for _, r := range *rules {
			s.Rules = append(s.Rules, t.steps(p, d, p.Namespace, policy.Accept, r))
		}
		list = append(list, s)
	}
	if len(list) > before {
		return list // nobody asks the baseline
	}
	return append(list, t.ofTier(verdict.Baseline, cluster, p, d)...)
}

// ofTier are the statements of those ClusterPolicies that are of a tier.
func (t *Table) ofTier(tier verdict.Tier, cluster []policy.ClusterPolicy, p *pod, d verdict.Direction) (list []verdict.Statement) {
	for _, c := range cluster {
		if verdict.Tier(c.Tier) != tier {
			continue
		}
		rules := c.Ingress
		if d == verdict.Egress {
			rules = c.Egress
		}
		s := verdict.Statement{Tier: tier, Policy: c.Key}
		for _, r := range rules {
			s.Rules = append(s.Rules, t.steps(p, d, "", r.Action, r.Rule))
		}
		list = append(list, s)
	}
	return list
}

// clusterPoliciesOf are those whose subject a pod is, in the order in which
// they are asked within their tier.
func (t *Table) clusterPoliciesOf(p *pod) []policy.ClusterPolicy {
	var list []policy.ClusterPolicy
	for _, c := range t.cluster {
		if peers.Matches(c.Namespaces, t.namespaces[p.Namespace]) && (c.Pods == nil || peers.Matches(*c.Pods, p.Labels)) {
			list = append(list, c)
		}
	}
	slices.SortFunc(list, func(a, b policy.ClusterPolicy) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), a.Key.Compare(b.Key))
	})
	return list
}

// steps resolves a rule's named ports and peers. A name means the ports of
// the pod that is connected to: on ingress the pod itself, on egress each
// peer, so that peers with different numbers are different groups.
func (t *Table) steps(p *pod, d verdict.Direction, namespace string, a policy.Action, r policy.Rule) (out []verdict.Step) {
	add := func(port *policy.NamedPort, s ports.Set) {
		out = append(out, verdict.Step{Group: t.group(namespace, r.Peers, port), Ports: s, Action: a})
	}
	if r.Ports == nil {
		add(nil, ports.Everything)
	}
	var plain []ports.Set
	for _, port := range r.Ports {
		switch {
		case port.Name == "":
			if s, ok := ports.Of(port); ok {
				plain = append(plain, s)
			}
		case d == verdict.Ingress:
			for _, own := range p.Ports {
				if s, ok := namedPorts(port, own); ok {
					plain = append(plain, s)
				}
			}
		default:
			for _, n := range t.numbersOf(port) {
				s, _ := namedPorts(port, n)
				add(&n, s)
			}
		}
	}
	if len(plain) > 0 {
		add(nil, ports.Union(plain...))
	}
	return out
}

// namedPorts is the port of a pod that a name in a rule means.
func namedPorts(want policy.Port, have policy.NamedPort) (ports.Set, bool) {
	if want.Name != have.Name || want.Protocol != 0 && want.Protocol != have.Protocol {
		return nil, false
	}
	return ports.Of(policy.Port{Protocol: have.Protocol, First: have.Port, Last: have.Port})
}

// numbersOf are all that a name means to any pod, in order.
func (t *Table) numbersOf(want policy.Port) []policy.NamedPort {
	var out []policy.NamedPort
	for _, proto := range ports.Protocols {
		if want.Protocol != 0 && want.Protocol != proto {
			continue
		}
		for _, n := range slices.Sorted(maps.Keys(t.named[namedPort{want.Name, proto}])) {
			out = append(out, policy.NamedPort{Name: want.Name, Protocol: proto, Port: n})
		}
	}
	return out
}

// group finds or makes the group of a list of peers; nil is everybody.
func (t *Table) group(namespace string, list []policy.Peer, port *policy.NamedPort) *peers.Group {
	if list == nil && port == nil {
		return nil
	}
	key := "anybody"
	if list == nil {
		list = []policy.Peer{{Namespaces: &policy.Selector{}}}
	} else {
		key = peers.Key(namespace, list)
	}
	if port != nil {
		key += fmt.Sprintf(" at %q %s %d", port.Name, port.Protocol, port.Port)
	}
	if known := t.groups[key]; known != nil {
		return known
	}
	t.lastGroup++
	g := peers.NewGroup(namespace, list, port)
	g.ID = t.lastGroup
	t.groups[key] = g
	t.dirty.groups[g] = true
	return g
}
