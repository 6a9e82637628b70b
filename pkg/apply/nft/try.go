package nft

import (
	"errors"
	"fmt"
	"slices"

	"poplin.dev/poplin/pkg/program"
)

// Try asks the kernel whether it takes the rules of a program, by making them in
// a table of their own that is removed at once. No packet meets them: their
// chains hang on no hook. owned says that the kernel knows tables that belong to
// a process; where it does, a process that is killed meanwhile leaves none.
func Try(want program.Table) (owned bool, err error) {
	t := newTable(Config{}, Name+"-probe")
	if err := t.connect(); err != nil {
		return false, err
	}
	defer func() { _ = t.conn.CloseLasting() }()
	err = t.send((*batch).addTable, flagOwner)
	owned = err == nil
	if unsupported(err) {
		err = t.send((*batch).addTable, 0)
	}
	if err != nil {
		return owned, err
	}
	defer func() { err = errors.Join(err, t.send((*batch).delTable, 0)) }()
	want.Chains = slices.Clone(want.Chains)
	for i := range want.Chains {
		want.Chains[i].Type, want.Chains[i].Hook = "", ""
	}
	if err := t.read(); err != nil {
		return owned, err
	}
	if _, err := t.write(want); err != nil {
		return owned, errors.Join(fmt.Errorf("write %s rules: %w", want.Module, err), t.reconnect())
	}
	return owned, nil
}
