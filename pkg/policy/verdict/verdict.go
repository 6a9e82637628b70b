// Package verdict is what policies say of one pod in one direction. Inputs are
// their statements, with peers and ports resolved for that pod; outputs are
// the ports that a class of others may use, and for one packet the rule that
// decides it. It refuses to know which policies are about which pod.
package verdict

import (
	"fmt"
	"strings"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/policy/peers"
	"poplin.dev/poplin/pkg/policy/ports"
)

// Direction is that of a connection, seen from the pod that policies isolate.
type Direction int

// Directions.
const (
	Ingress Direction = iota
	Egress
)

func (d Direction) String() string { return [...]string{"ingress", "egress"}[d] }

// MarshalText implements encoding.TextMarshaler.
func (d Direction) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Tier says when a policy is asked.
type Tier string

// Tiers, in this order. The baseline is not asked about pods that a
// NetworkPolicy isolates.
const (
	Admin    = Tier(policy.Admin)
	Network  = Tier("NetworkPolicy")
	Baseline = Tier(policy.Baseline)
	// None is where no policy has anything to say.
	None = Tier("None")
)

// Statement is what one policy says of a pod.
type Statement struct {
	Tier Tier
	// Policy has no namespace if it is a ClusterPolicy.
	Policy policy.Key
	// Rules are in the policy's order. One that names ports can be several
	// steps: they mean other numbers for other peers.
	Rules [][]Step
}

// Step is a rule, or a part of one, for one pod.
type Step struct {
	Group  *peers.Group // nil: anybody
	Ports  ports.Set
	Action policy.Action
}

func (s Step) groupID() int {
	if s.Group == nil {
		return 0
	}
	return s.Group.ID
}

// Source is a policy, or one of its rules.
type Source struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Field is where in the policy the rule stands.
	Field string `json:"field,omitempty"`
}

func (s Source) String() string {
	text := s.Kind + " " + strings.TrimPrefix(s.Namespace+"/"+s.Name, "/")
	if s.Field != "" {
		text += ", " + s.Field
	}
	return text
}

func (s Statement) source() Source {
	kind := "NetworkPolicy"
	if s.Tier != Network {
		kind = "ClusterNetworkPolicy"
	}
	return Source{Kind: kind, Namespace: s.Policy.Namespace, Name: s.Policy.Name}
}

// Decision is what becomes of a packet at one of its ends, and who says so.
type Decision struct {
	Direction Direction  `json:"direction"`
	Pod       policy.Key `json:"pod"`
	Allowed   bool       `json:"allowed"`
	Tier      Tier       `json:"tier"`
	// By is the rule that decides. Without one, no policy has anything to say
	// (tier None), or none of those that isolate the pod allows the packet.
	By *Source `json:"by,omitempty"`
	// Passed are rules that leave the packet to whoever is asked next.
	Passed []Source `json:"passed,omitempty"`
	// Isolating are the NetworkPolicies that isolate the pod, if they were
	// asked.
	Isolating []Source `json:"isolating,omitempty"`
}

func (d Decision) String() string {
	verdict := map[bool]string{false: "denied", true: "allowed"}[d.Allowed]
	text := fmt.Sprintf("%s of pod %s: %s", d.Direction, d.Pod, verdict)
	switch {
	case d.By != nil:
		text += fmt.Sprintf(" by %s", d.By)
	case d.Tier == None:
		text += ", no policy says anything of it"
	default:
		text += fmt.Sprintf(", isolated by %s; none of their rules allows it", List(d.Isolating))
	}
	if len(d.Passed) > 0 {
		text += fmt.Sprintf(" (passed on by %s)", List(d.Passed))
	}
	return text
}

// List names sources one after the other.
func List(sources []Source) string {
	parts := make([]string, len(sources))
	for i, s := range sources {
		parts[i] = s.String()
	}
	return strings.Join(parts, " and ")
}

// Find looks for the rule that decides what a class sends as packet, or is
// sent: the way to a decision. Whether it is allowed is for the profile of
// the same statements to say.
func Find(d Direction, statements []Statement, c *peers.Class, packet ports.Set) Decision {
	found := Decision{Direction: d, Tier: None}
	var passed Tier // this one has nothing more to say
	for _, s := range statements {
		if s.Tier == passed {
			continue
		}
		if s.Tier == Network {
			found.Tier = Network
			found.Isolating = append(found.Isolating, s.source())
		}
		rule, action := s.first(c, packet)
		if action == "" || found.By != nil {
			continue
		}
		at := s.source()
		at.Field = fmt.Sprintf("spec.%s[%d]", d, rule)
		if action == policy.Pass {
			found.Passed, passed = append(found.Passed, at), s.Tier
			continue
		}
		found.By, found.Tier = &at, s.Tier
		if s.Tier != Network {
			break
		}
	}
	return found
}

// first is the first of the rules that is about a packet, with its action.
func (s Statement) first(c *peers.Class, packet ports.Set) (rule int, action policy.Action) {
	for i, steps := range s.Rules {
		for _, step := range steps {
			if c.Has(step.Group) && len(packet.And(step.Ports)) > 0 {
				return i, step.Action
			}
		}
	}
	return 0, ""
}
