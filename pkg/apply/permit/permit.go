// Package permit makes the nftables table `inet poplin-policy` agree with a
// program of pkg/program/permit, by netlink. Inputs are a program or a change;
// outputs are errors that say what the kernel refused, and what the kernel
// held before. It never flushes at start: it lists what an earlier process
// left and sends the difference. It refuses to touch any other table.
package permit

import (
	"context"
	"fmt"
	"log/slog"

	"poplin.dev/poplin/pkg/apply/table"
	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/program/permit"
)

// Name is the table's name; its family is inet.
const Name = "poplin-policy"

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
	// held is what the kernel holds; nil: it must be read first.
	held *permit.Program
}

// Open connects to the kernel and changes nothing there.
func Open(conf Config) (*Table, error) {
	kernel, err := table.Open(table.Config{
		Name: Name, Maps: layout(), Hooked: permit.Chains(), Plain: conf.Plain, NetNS: conf.NetNS, Log: conf.Log,
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
func (t *Table) Forget() { t.held = nil }

// Program is what the kernel holds. The caller must not change it, and reads
// it before the next call.
func (t *Table) Program() (permit.Program, error) {
	if err := t.prepare(); err != nil {
		return permit.Program{}, err
	}
	return *t.held, nil
}

// Set makes the kernel hold a program, whatever it holds now, and returns
// how many elements that took.
func (t *Table) Set(want permit.Program) (int, error) {
	held, err := t.Program()
	if err != nil {
		return 0, err
	}
	c := permit.Diff(held, want)
	return c.Delete.Len() + c.Put.Len(), t.Apply(c)
}

// Apply makes a change. After an error the kernel may hold a part of it: call
// Set.
func (t *Table) Apply(c permit.Change) error {
	if err := t.prepare(); err != nil {
		return err
	}
	// Where all of it fits one batch, the order is only the kernel's. A large
	// one permits before it isolates.
	err := t.kernel.Steps(
		func(b *wire.Batch) { isolation(b, table.Delete, c.Delete) },
		func(b *wire.Batch) { permissions(b, table.Delete, c.Delete) },
		func(b *wire.Batch) { permissions(b, table.Put, c.Put) },
		func(b *wire.Batch) { isolation(b, table.Put, c.Put) },
	)
	if err != nil {
		t.Forget()
		return t.kernel.Reconnect(fmt.Errorf("write table inet %s: %w", Name, err))
	}
	c.Apply(*t.held)
	return nil
}

// Remove takes the table away.
func (t *Table) Remove() error {
	t.Forget()
	return t.kernel.Remove()
}

// prepare makes the table and its fixed parts exist, and learns what it holds.
func (t *Table) prepare() error {
	if t.held != nil {
		return nil
	}
	var p permit.Program
	err := t.kernel.Prepare(func() { p = permit.New() }, func(name string, list []table.Element) bool { return enter(p, name, list) })
	if err != nil {
		return err
	}
	b := t.kernel.NewBatch()
	err = t.kernel.PutChains(b, permit.Chains())
	if err == nil {
		err = t.kernel.Send(b)
	}
	if err != nil {
		return t.kernel.Reconnect(err)
	}
	t.held = &p
	return nil
}
