package permit

import (
	"poplin.dev/poplin/pkg/apply/table"
	"poplin.dev/poplin/pkg/program/permit"
)

// Look reads what the kernel holds and changes nothing; wrong is what of the
// table is missing, or not as this version makes it.
func Look() (p permit.Program, wrong []string, err error) {
	p = permit.New()
	found, err := table.Look(table.Config{Name: Name, Maps: layout(), Hooked: permit.Chains(0)},
		func(name string, list []table.Element) bool { return enter(p, name, list) })
	if err != nil {
		return p, nil, err
	}
	return p, found.Wrong(permit.Chains(permit.EpochOf(found.Label))), nil
}
