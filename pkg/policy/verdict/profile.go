package verdict

import (
	"fmt"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/policy/peers"
	"poplin.dev/poplin/pkg/policy/ports"
)

// Profile is what the policies of a pod say in one direction, without their
// names: pods about which they say the same share one.
type Profile struct {
	// Key is the same for profiles that say the same.
	Key string
	// Users counts the pods.
	Users int

	// admin and baseline are in the order in which they are asked.
	admin, baseline []Step
	// isolated: a NetworkPolicy applies, and allowed is all it permits.
	isolated bool
	allowed  []Step
	// decided has the answer for classes that were asked for.
	decided map[*peers.Class]ports.Set
}

// NewProfile joins all that policies say.
func NewProfile(d Direction, list []Statement) *Profile {
	p := &Profile{decided: map[*peers.Class]ports.Set{}}
	for _, s := range list {
		steps := slices.Concat(s.Rules...)
		switch s.Tier {
		case Admin:
			p.admin = append(p.admin, steps...)
		case Network:
			p.isolated = true
			p.allowed = append(p.allowed, steps...)
		case Baseline:
			p.baseline = append(p.baseline, steps...)
		}
	}
	p.Key = d.String() + " " + p.text()
	return p
}

// Applies is false where there is nothing to look up: everything is allowed.
func (p *Profile) Applies() bool { return p.isolated || len(p.admin)+len(p.baseline) > 0 }

// Decide returns the ports that a class may use: ClusterPolicies of the admin
// tier first, then NetworkPolicies, which are final for the pods that they
// select, then the baseline.
func (p *Profile) Decide(c *peers.Class) ports.Set {
	if known, ok := p.decided[c]; ok {
		return known
	}
	accepted, open := tier(p.admin, c, ports.Everything)
	if p.isolated {
		var allowed []ports.Set
		for _, s := range p.allowed {
			if c.Has(s.Group) {
				allowed = append(allowed, s.Ports)
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

// Forget is told of a class that is no more.
func (p *Profile) Forget(c *peers.Class) { delete(p.decided, c) }

// tier asks steps in turn: of the ports in question, which they accept and
// which they leave to whoever is asked next.
func tier(steps []Step, c *peers.Class, question ports.Set) (accepted, open ports.Set) {
	var yes, passed []ports.Set
	for _, s := range steps {
		if !c.Has(s.Group) {
			continue
		}
		switch hit := question.And(s.Ports); s.Action {
		case policy.Accept:
			yes = append(yes, hit)
		case policy.Pass:
			passed = append(passed, hit)
		}
		question = question.Minus(s.Ports)
	}
	return ports.Union(yes...), ports.Union(append(passed, question)...)
}

// text identifies a profile by its content.
func (p *Profile) text() string {
	var b strings.Builder
	list := func(name string, steps []Step) {
		b.WriteString(name)
		for _, s := range steps {
			fmt.Fprintf(&b, "%s %d %s;", s.Action, s.groupID(), s.Ports.Key())
		}
	}
	list("admin ", p.admin)
	if p.isolated {
		// Their order means nothing.
		sorted := slices.Clone(p.allowed)
		slices.SortFunc(sorted, func(a, b Step) int {
			return strings.Compare(fmt.Sprint(a.groupID(), a.Ports.Key()), fmt.Sprint(b.groupID(), b.Ports.Key()))
		})
		list("isolated ", sorted)
	} else {
		list("baseline ", p.baseline)
	}
	return b.String()
}

// EachGroup calls each for the group of every step that has one.
func (p *Profile) EachGroup(each func(*peers.Group)) {
	for _, list := range [][]Step{p.admin, p.allowed, p.baseline} {
		for _, s := range list {
			if s.Group != nil {
				each(s.Group)
			}
		}
	}
}
