package nft

import (
	"errors"
	"maps"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/program"
)

// Seen is what the kernel holds of the table.
type Seen struct {
	Sets     map[string][]netip.Prefix
	Counters map[string]uint64
	// Wrong is what is missing, or not as it was wanted.
	Wrong []string
}

// Look reads the table, whoever owns it, and changes nothing. Of want the
// chains are compared, which are the same whatever the sets hold.
func Look(want ...program.Table) (seen Seen, err error) {
	t := newTable(Config{}, Name)
	if err := t.connect(); err != nil {
		return seen, err
	}
	defer func() { err = errors.Join(err, t.conn.CloseLasting()) }()
	if _, exists, err := t.lookup(); err != nil {
		return seen, err
	} else if !exists {
		seen.Wrong = []string{"table inet " + Name + " does not exist"}
		return seen, nil
	}
	if err := t.read(); err != nil {
		return seen, err
	}
	if seen.Counters, err = t.readCounters(); err != nil {
		return seen, err
	}
	seen.Sets = map[string][]netip.Prefix{}
	for name, s := range t.mirror.sets {
		seen.Sets[name] = slices.SortedFunc(maps.Keys(s.elements), netip.Prefix.Compare)
	}
	for _, w := range want {
		for _, c := range w.Chains {
			seen.Wrong = append(seen.Wrong, t.mirror.differs(c)...)
		}
	}
	return seen, nil
}

// differs says how a chain is not as it was wanted.
func (m *mirror) differs(want program.Chain) []string {
	have := m.chains[want.Name]
	if have == nil {
		return []string{"chain " + want.Name + " is missing"}
	}
	if !slices.EqualFunc(have.rules, want.Rules, func(h mark, r program.Rule) bool { return h == markOf(r) }) {
		return []string{"rules of chain " + want.Name + " are not as they should be"}
	}
	return nil
}
