package policy

import (
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/policy/peers"
)

// Namespaces says of each namespace whether policies are about pods of it, those
// among them that wait and that the table was not told of.
func (t *Table) Namespaces(waiting ...policy.ClusterPolicy) map[string]bool {
	all := make(map[string]bool, len(t.namespaces))
	for name := range t.namespaces {
		all[name] = len(t.policies[name]) > 0
		for _, c := range t.cluster {
			all[name] = all[name] || t.About(c, name)
		}
		for _, c := range waiting {
			all[name] = all[name] || t.About(c, name)
		}
	}
	return all
}

// About reports whether a policy is about pods of a namespace.
func (t *Table) About(c policy.ClusterPolicy, namespace string) bool {
	return c.Unread == "" && peers.Matches(c.Namespaces, t.namespaces[namespace])
}
