package policy

import "poplin.dev/poplin/pkg/policy/peers"

// Namespaces says of each namespace whether policies are about pods of it.
func (t *Table) Namespaces() map[string]bool {
	all := make(map[string]bool, len(t.namespaces))
	for name, labels := range t.namespaces {
		all[name] = len(t.policies[name]) > 0
		for _, c := range t.cluster {
			all[name] = all[name] || c.Unread == "" && peers.Matches(c.Namespaces, labels)
		}
	}
	return all
}
