package graph

import (
	"fmt"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/policy/peers"
)

// Policy is a NetworkPolicy or a ClusterNetworkPolicy, whose ID has no
// namespace.
type Policy struct {
	Thing
	Kind string `json:"kind"`
	// About is tier and priority of a ClusterNetworkPolicy.
	About string `json:"about,omitempty"`
	// Ingress and Egress say in words what it has for each direction; empty
	// where it says nothing.
	Ingress string `json:"ingress,omitempty"`
	Egress  string `json:"egress,omitempty"`
	// Pods are the IDs of those that it is about.
	Pods []string `json:"pods"`
}

func (g *Graph) policies(o policy.Objects) {
	namespaces := map[string]map[string]string{}
	for _, n := range o.Namespaces {
		namespaces[n.Name] = n.Labels
	}
	for _, p := range o.Policies {
		x := Policy{
			Thing: Thing{ID: "policy/" + p.String(), Namespace: p.Key.Namespace, Name: p.Name}, Kind: "NetworkPolicy",
			Ingress: rules(p.Ingress), Egress: rules(p.Egress), Pods: []string{},
		}
		for _, pod := range o.Pods {
			if pod.Namespace == p.Key.Namespace && peers.Matches(p.Pods, pod.Labels) {
				x.Pods = append(x.Pods, "pod/"+pod.String())
			}
		}
		g.Policies = append(g.Policies, x)
	}
	for _, p := range o.Cluster {
		x := Policy{
			Thing: Thing{ID: "policy/" + p.Name, Name: p.Name}, Kind: "ClusterNetworkPolicy", About: fmt.Sprintf("%s, priority %d", p.Tier, p.Priority),
			Ingress: actions(p.Ingress), Egress: actions(p.Egress), Pods: []string{},
		}
		if p.Unread != "" {
			x.problem("%s", p.Unread)
		}
		for _, pod := range o.Pods {
			if peers.Matches(p.Namespaces, namespaces[pod.Namespace]) && (p.Pods == nil || peers.Matches(*p.Pods, pod.Labels)) {
				x.Pods = append(x.Pods, "pod/"+pod.String())
			}
		}
		g.Policies = append(g.Policies, x)
	}
	byID(g.Policies, func(p Policy) string { return p.ID })
	about := map[string][]string{}
	for _, p := range g.Policies {
		slices.Sort(p.Pods)
		for _, pod := range p.Pods {
			about[pod] = append(about[pod], p.ID)
		}
	}
	for i, p := range g.Pods {
		g.Pods[i].Policies = about[p.ID]
	}
}

// rules says what a NetworkPolicy does to a direction.
func rules(r *policy.Rules) string {
	switch {
	case r == nil:
		return ""
	case len(*r) == 0:
		return "nothing is allowed"
	case slices.ContainsFunc(*r, func(r policy.Rule) bool { return r.Peers == nil && r.Ports == nil }):
		return "everything is allowed"
	case len(*r) == 1:
		return "1 rule allows"
	}
	return fmt.Sprintf("%d rules allow", len(*r))
}

// actions says what a ClusterNetworkPolicy does, in the order of its rules.
func actions(list []policy.ClusterRule) string {
	var words []string
	for _, r := range list {
		if word := string(r.Action); len(words) == 0 || words[len(words)-1] != word {
			words = append(words, word)
		}
	}
	return strings.Join(words, ", then ")
}
