package policy

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/policy/peers"
	"poplin.dev/poplin/pkg/policy/ports"
)

// profile returns the profile of a pod, shared with others that have the same.
func (t *Table) profile(p *pod, d direction) *profile {
	next := t.build(p, d)
	next.key = d.String() + " " + next.text()
	if known := t.profiles[next.key]; known != nil {
		return known
	}
	t.profiles[next.key] = next
	next.eachGroup(func(g *peers.Group) { g.Users++ })
	return next
}

func (t *Table) dropProfile(p *profile) {
	if p.users--; p.users == 0 {
		delete(t.profiles, p.key)
		p.eachGroup(func(g *peers.Group) { g.Users-- })
	}
}

// build joins all that policies say about a pod.
func (t *Table) build(p *pod, d direction) *profile {
	out := &profile{decided: map[*peers.Class]ports.Set{}}
	for _, c := range t.clusterPoliciesOf(p) {
		list := c.Ingress
		if d == egress {
			list = c.Egress
		}
		for _, r := range list {
			for _, step := range t.steps(p, d, "", r.Rule) {
				step.action = r.Action
				if c.Tier == policy.Admin {
					out.admin = append(out.admin, step)
				} else {
					out.baseline = append(out.baseline, step)
				}
			}
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(t.policies[p.Namespace]), policy.Key.Compare) {
		n := t.policies[p.Namespace][k]
		list := n.Ingress
		if d == egress {
			list = n.Egress
		}
		if list == nil || !peers.Matches(n.Pods, p.Labels) {
			continue
		}
		out.isolated = true
		for _, r := range *list {
			for _, step := range t.steps(p, d, p.Namespace, r) {
				step.action = policy.Accept
				out.allowed = append(out.allowed, step)
			}
		}
	}
	if out.isolated {
		out.baseline = nil // nobody asks it
	}
	return out
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
func (t *Table) steps(p *pod, d direction, namespace string, r policy.Rule) []rule {
	if r.Ports == nil {
		return []rule{{group: t.group(namespace, r.Peers, nil), ports: ports.Everything}}
	}
	var out []rule
	var plain []ports.Set
	for _, port := range r.Ports {
		switch {
		case port.Name == "":
			if s, ok := ports.Of(port); ok {
				plain = append(plain, s)
			}
		case d == ingress:
			for _, own := range p.Ports {
				if s, ok := namedPorts(port, own); ok {
					plain = append(plain, s)
				}
			}
		default:
			for _, n := range t.numbersOf(port) {
				s, _ := namedPorts(port, n)
				out = append(out, rule{group: t.group(namespace, r.Peers, &n), ports: s})
			}
		}
	}
	if len(plain) > 0 {
		out = append(out, rule{group: t.group(namespace, r.Peers, nil), ports: ports.Union(plain...)})
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

func (p *profile) eachGroup(each func(*peers.Group)) {
	for _, list := range [][]rule{p.admin, p.allowed, p.baseline} {
		for _, r := range list {
			if r.group != nil {
				each(r.group)
			}
		}
	}
}
