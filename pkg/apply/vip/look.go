package vip

import (
	"maps"
	"slices"

	"poplin.dev/poplin/pkg/apply/table"
	"poplin.dev/poplin/pkg/program/vip"
)

// Look reads what the kernel holds and changes nothing; wrong is what of the
// table is missing, or not as this version makes it.
func Look() (p vip.Program, wrong []string, err error) {
	p = vip.New()
	m := &mirror{program: &p, picks: map[uint32]bool{}, clocks: map[uint32]bool{}, sticky: map[uint32]bool{}}
	found, err := table.Look(table.Config{Name: Name, Maps: layout(), Hooked: vip.Chains(nil, nil)}, m.enter)
	if err != nil {
		return p, nil, err
	}
	picks := []vip.Pick{0}
	for k := range m.picks {
		picks = append(picks, vip.Pick(k))
	}
	slices.Sort(picks)
	return p, found.Wrong(vip.Chains(slices.Compact(picks), slices.Sorted(maps.Keys(m.clocks)))), nil
}
