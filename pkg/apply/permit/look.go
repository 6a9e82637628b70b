package permit

import (
	"poplin.dev/poplin/pkg/apply/table"
	"poplin.dev/poplin/pkg/program/nft"
	"poplin.dev/poplin/pkg/program/permit"
)

// Look reads what the kernel holds and changes nothing; wrong is what of the
// table is missing, or not as this version makes it.
func Look() (p permit.Program, wrong []string, err error) {
	p = permit.New()
	found, err := table.Look(table.Config{Name: Name, Maps: layout(), Hooked: permit.Chains(permit.State{})},
		func(name string, list []table.Element) bool { return enter(p, name, list) })
	if err != nil {
		return p, nil, err
	}
	// Whether drops are logged and connections kept is the daemon's to say, and
	// without isolated pods no rule names an epoch, on kernels that know labels
	// too.
	epochs := []permit.Epoch{permit.EpochOf(found.Label)}
	if epochs[0] == 0 {
		epochs = append(epochs, 1)
	}
	for _, e := range epochs {
		for _, keeping := range []bool{false, true} {
			state := permit.State{Epoch: e, Isolating: p.Isolating(), Keeping: keeping}
			for _, chains := range [][]nft.Chain{permit.Chains(state), permit.Logging(permit.Chains(state))} {
				list := found.Wrong(chains)
				if len(list) == 0 {
					return p, nil, nil
				}
				if wrong == nil || len(list) < len(wrong) {
					wrong = list
				}
			}
		}
	}
	return p, wrong, nil
}
