package policy

import (
	"net/netip"

	compiler "poplin.dev/poplin/pkg/policy"
	"poplin.dev/poplin/pkg/policy/verdict"
)

// Explain says what becomes of a packet at those of its ends that are pods of
// this node, and whose rules say so. Before the first pass it knows nothing.
func (m *Module) Explain(p compiler.Packet) []verdict.Decision {
	m.judging.Lock()
	defer m.judging.Unlock()
	if m.table == nil {
		return nil
	}
	return m.table.Explain(p)
}

// name is who has an address.
func (m *Module) name(a netip.Addr) string {
	m.judging.Lock()
	defer m.judging.Unlock()
	if m.table == nil {
		return a.String()
	}
	return m.table.Name(a)
}
