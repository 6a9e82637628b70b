// Package vip makes the nftables table `inet poplin-services` agree with a
// program of pkg/program/vip, by netlink. Inputs are a program or a change;
// outputs are errors that say what the kernel refused, and what the kernel
// held before. It never flushes at start: it lists what an earlier process
// left and sends the difference. It refuses to touch any other table.
//
// The table is apart from Poplin's other ones so that a hundred thousand
// elements burden nobody else's listing, and so that switching Services off
// is removing one table.
package vip

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/apply/table"
	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/program/vip"
)

// Name is the table's name; its family is inet.
const Name = "poplin-services"

// Config is how a Table is used.
type Config struct {
	// Plain makes a table without owner, as on a kernel that knows none.
	Plain bool
	// NetNS is a descriptor of the network namespace; 0 is the caller's.
	NetNS int
	Log   *slog.Logger
}

// Table is the kernel's table.
type Table struct {
	kernel *table.Table
	mirror *mirror // nil: the kernel must be read first
}

// Open connects to the kernel and changes nothing there.
func Open(conf Config) (*Table, error) {
	kernel, err := table.Open(table.Config{
		Name: Name, Maps: layout(), Hooked: vip.Chains(nil, nil), Plain: conf.Plain, NetNS: conf.NetNS, Log: conf.Log,
	})
	if err != nil {
		return nil, err
	}
	return &Table{kernel: kernel}, nil
}

// Close leaves the table to the next process.
func (t *Table) Close() error { return t.kernel.Close() }

// Watch calls changed whenever another program has changed the table, until
// ctx ends; only one caller can. Unlike the other methods it may run beside
// them. A table with an owner nobody else can change.
func (t *Table) Watch(ctx context.Context, changed func()) error { return t.kernel.Watch(ctx, changed) }

// Forget has the next call read the kernel again.
func (t *Table) Forget() { t.mirror = nil }

// Program is what the kernel holds. The caller must not change it, and reads
// it before the next call.
func (t *Table) Program() (vip.Program, error) {
	if t.mirror != nil && t.mirror.program == nil {
		t.Forget()
	}
	if err := t.prepare(); err != nil {
		return vip.Program{}, err
	}
	return *t.mirror.program, nil
}

// Look is Program for a Table that is there to look: it changes nothing, and ok
// is false where something else than elements is not as it should be. The table
// may be changed meanwhile, and what is read then is neither of before nor of
// after.
func (t *Table) Look() (held vip.Program, ok bool, err error) {
	m := newMirror()
	if ok, err = t.kernel.Look(m.enter); err != nil || !ok {
		return *m.program, ok, err
	}
	picks, timeouts := m.lacks(*m.program)
	b, err := t.chains(m, append(picks, m.known()...), append(timeouts, slices.Collect(maps.Keys(m.clocks))...))
	return *m.program, err == nil && b.Size() == 0, err
}

// Set makes the kernel hold a program, whatever it holds now, and returns
// how many elements that took.
func (t *Table) Set(want vip.Program) (int, error) {
	held, err := t.Program()
	if err != nil {
		return 0, err
	}
	c := vip.Diff(held, want)
	if err := t.Apply(c); err != nil || t.mirror.swept {
		return c.Delete.Len() + c.Put.Len(), err
	}
	if err := t.sweep(want.Endpoints); err != nil {
		return c.Delete.Len() + c.Put.Len(), t.reconnect(err)
	}
	t.mirror.swept = true
	return c.Delete.Len() + c.Put.Len(), nil
}

// Apply makes a change. After an error the kernel may hold a part of it: call
// Set.
func (t *Table) Apply(c vip.Change) error {
	if err := t.prepare(); err != nil {
		return err
	}
	t.mirror.program = nil
	if err := t.apply(c); err != nil {
		return t.reconnect(fmt.Errorf("write table inet %s: %w", Name, err))
	}
	t.mirror.note(c.Put)
	if err := t.expel(c); err != nil {
		return t.reconnect(err)
	}
	return nil
}

// Remove takes the table away.
func (t *Table) Remove() error {
	t.Forget()
	return t.kernel.Remove()
}

// reconnect starts over after an error, and returns it.
func (t *Table) reconnect(cause error) error {
	t.Forget()
	return t.kernel.Reconnect(cause)
}

// prepare makes the table and its fixed parts exist, and the mirror true.
func (t *Table) prepare() error {
	if t.mirror != nil {
		return nil
	}
	var m *mirror
	err := t.kernel.Prepare(func() { m = newMirror() }, func(name string, list []table.Element) bool { return m.enter(name, list) })
	if err != nil {
		return err
	}
	m.note(*m.program)
	t.mirror = m
	if err := t.putChains(m.known(), slices.Collect(maps.Keys(m.clocks))); err != nil {
		return t.reconnect(err)
	}
	return nil
}

// putChains brings chains up to date.
func (t *Table) putChains(picks []vip.Pick, timeouts []uint32) error {
	b, err := t.chains(t.mirror, picks, timeouts)
	if err != nil {
		return err
	}
	return t.kernel.Send(b)
}

// chains writes what is missing of chains, and enters it into the mirror.
func (t *Table) chains(m *mirror, picks []vip.Pick, timeouts []uint32) (*wire.Batch, error) {
	slices.Sort(picks)
	slices.Sort(timeouts)
	b := t.kernel.NewBatch()
	if err := t.kernel.PutChains(b, vip.Chains(slices.Compact(picks), slices.Compact(timeouts))); err != nil {
		return nil, err
	}
	for _, p := range picks {
		if !m.picks[uint32(p)] {
			table.Verdict(b, "picks", uint32(p), p.Chain())
			m.picks[uint32(p)] = true
		}
	}
	for _, s := range timeouts {
		if !m.clocks[s] {
			table.Verdict(b, "clocks", s, vip.LearnChain(s))
			m.clocks[s] = true
		}
	}
	return b, nil
}

// apply sends a change: first what is drawn, then what draws, then what is
// not drawn any more. Where all of it fits one batch, that order is only the
// kernel's.
func (t *Table) apply(c vip.Change) error {
	if err := t.grow(c.Put); err != nil {
		return err
	}
	replaced, gone := split(c)
	return t.kernel.Steps(
		func(b *wire.Batch) { endpoints(b, table.Delete, replaced) },
		func(b *wire.Batch) { endpoints(b, table.Put, c.Put.Endpoints) },
		func(b *wire.Batch) { rest(b, table.Delete, c.Delete) },
		func(b *wire.Batch) { rest(b, table.Put, c.Put) },
		func(b *wire.Batch) { fronts(b, table.Delete, "frontends", c.Delete.Frontends, nil) },
		func(b *wire.Batch) { fronts(b, table.Put, "frontends", c.Put.Frontends, valueNumber) },
		func(b *wire.Batch) { fronts(b, table.Delete, "outside", c.Delete.Outside, nil) },
		func(b *wire.Batch) { fronts(b, table.Put, "outside", c.Put.Outside, valueNumber) },
		func(b *wire.Batch) { endpoints(b, table.Delete, gone) },
	)
}

// split tells slots that change hands from those that go.
func split(c vip.Change) (replaced, gone map[vip.Slot]netip.AddrPort) {
	replaced, gone = map[vip.Slot]netip.AddrPort{}, map[vip.Slot]netip.AddrPort{}
	for s, a := range c.Delete.Endpoints {
		if _, again := c.Put.Endpoints[s]; again {
			replaced[s] = a
		} else {
			gone[s] = a
		}
	}
	return replaced, gone
}

// grow adds the chains that new values need, before there are such values.
func (t *Table) grow(p vip.Program) error {
	picks, timeouts := t.mirror.lacks(p)
	if len(picks)+len(timeouts) == 0 {
		return nil
	}
	return t.putChains(picks, timeouts)
}
