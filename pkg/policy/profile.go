package policy

import (
	"fmt"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/policy/peers"
	"poplin.dev/poplin/pkg/policy/ports"
)

// direction is that of a connection, seen from the pod that policies isolate.
type direction int

const (
	ingress direction = iota
	egress
)

func (d direction) String() string { return [...]string{"ingress", "egress"}[d] }

// rule is one step of a profile.
type rule struct {
	group  *peers.Group // nil: anybody
	ports  ports.Set
	action policy.Action
}

// profile is what the policies of a pod say in one direction. Pods about
// which they say the same share one.
type profile struct {
	key string
	// admin and baseline are in the order in which they are asked.
	admin, baseline []rule
	// isolated: a NetworkPolicy applies, and allowed is all it permits.
	isolated bool
	allowed  []rule
	// users counts the pods.
	users int
	// decided has the answer for classes that were asked for.
	decided map[*peers.Class]ports.Set
}

// applies is false where there is nothing to look up: ports.Everything is allowed.
func (p *profile) applies() bool { return p.isolated || len(p.admin)+len(p.baseline) > 0 }

// decide returns the ports that a class may use: ClusterPolicies of the admin
// tier first, then NetworkPolicies, which are final for the pods that they
// select, then the baseline.
func (p *profile) decide(c *peers.Class) ports.Set {
	if known, ok := p.decided[c]; ok {
		return known
	}
	accepted, open := tier(p.admin, c, ports.Everything)
	if p.isolated {
		var allowed []ports.Set
		for _, r := range p.allowed {
			if c.Has(r.group) {
				allowed = append(allowed, r.ports)
			}
		}
		accepted = ports.Union(accepted, open.And(ports.Union(allowed...)))
	} else {
		more, rest := tier(p.baseline, c, open)
		accepted = ports.Union(accepted, more, rest)
	}
	p.decided[c] = accepted
	return accepted
}

// tier asks rules in turn: of the ports in question, which they accept and
// which they leave to whoever is asked next.
func tier(rules []rule, c *peers.Class, question ports.Set) (accepted, open ports.Set) {
	var yes, passed []ports.Set
	for _, r := range rules {
		if !c.Has(r.group) {
			continue
		}
		switch hit := question.And(r.ports); r.action {
		case policy.Accept:
			yes = append(yes, hit)
		case policy.Pass:
			passed = append(passed, hit)
		}
		question = question.Minus(r.ports)
	}
	return ports.Union(yes...), ports.Union(append(passed, question)...)
}

// text identifies a profile by its content.
func (p *profile) text() string {
	var b strings.Builder
	list := func(name string, rules []rule) {
		b.WriteString(name)
		for _, r := range rules {
			id := 0
			if r.group != nil {
				id = r.group.ID
			}
			fmt.Fprintf(&b, "%s %d %s;", r.action, id, r.ports.Key())
		}
	}
	list("admin ", p.admin)
	if p.isolated {
		// Their order means nothing.
		sorted := slices.Clone(p.allowed)
		slices.SortFunc(sorted, func(a, b rule) int {
			return strings.Compare(fmt.Sprint(groupID(a.group), a.ports.Key()), fmt.Sprint(groupID(b.group), b.ports.Key()))
		})
		list("isolated ", sorted)
	} else {
		list("baseline ", p.baseline)
	}
	return b.String()
}

func groupID(g *peers.Group) int {
	if g == nil {
		return 0
	}
	return g.ID
}
