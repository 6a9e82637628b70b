// Package table keeps one nftables table of family inet whose program is
// elements of a constant number of maps and sets: it opens, owns, reads and
// writes it by netlink. Inputs are the maps, chains and elements as bytes that
// a module wants; outputs are what the kernel holds, and errors that say what
// it refused. It never flushes at start: what an earlier process left is read,
// so that the difference can be sent. It refuses to touch any other table, and
// to know what an element means.
//
// Where the kernel can (6.9) the table is owned by this process' socket and
// outlives it.
package table

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/monitor"
	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/program/nft"
)

// Table flags of linux/netfilter/nf_tables.h that golang.org/x/sys lacks.
const (
	flagOwner   = 0x2 // 5.12
	flagPersist = 0x4 // 6.9
)

const (
	// bufferSize holds the largest batch and its acknowledgements.
	bufferSize = 4 << 20
	// Largest is the size at which a batch goes. Smaller changes are one
	// transaction; a start on a large cluster is several.
	Largest = bufferSize / 4
)

// Config says which table, and how it is used.
type Config struct {
	Name string
	Maps []Map
	// Hooked are the chains with a hook, which cannot be changed in place.
	Hooked []nft.Chain
	// Plain makes a table without owner, as on a kernel that knows none.
	Plain bool
	// NetNS is a descriptor of the network namespace; 0 is the caller's.
	NetNS int
	Log   *slog.Logger
}

// Table is the kernel's table, through one lasting socket.
type Table struct {
	conf   Config
	sock   *netlink.Conn
	others *monitor.Monitor
	maps   map[string]bool        // that exist
	chains map[string][]wire.Mark // and the rules in them
	label  nft.Label              // that a rule asks for
	lastID uint32
}

// Open connects to the kernel and changes nothing there.
func Open(conf Config) (*Table, error) {
	others, err := monitor.Open(conf.Name, conf.NetNS)
	if err != nil {
		return nil, err
	}
	t := &Table{conf: conf, others: others}
	return t, t.connect()
}

// Close leaves the table to the next process.
func (t *Table) Close() error { return errors.Join(t.others.Close(), t.sock.Close()) }

// Watch calls changed whenever another program has changed the table, until
// ctx ends; only one caller can. Unlike the other methods it may run beside
// them. A table with an owner nobody else can change.
func (t *Table) Watch(ctx context.Context, changed func()) error { return t.others.Watch(ctx, changed) }

func (t *Table) connect() error {
	sock, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: t.conf.NetNS})
	if err != nil {
		return fmt.Errorf("open nftables socket (is nf_tables missing from the kernel?): %w", err)
	}
	if err := errors.Join(sock.SetWriteBuffer(bufferSize), sock.SetReadBuffer(bufferSize)); err != nil {
		sock.Close()
		return fmt.Errorf("enlarge nftables socket: %w", err)
	}
	t.sock = sock
	return t.others.Own(sock)
}

// Reconnect starts over after an error: answers to the failed batch may still
// sit in the socket and would be taken for those to the next one. It returns
// the error too, with what more went wrong.
func (t *Table) Reconnect(cause error) error {
	t.sock.Close()
	return errors.Join(cause, t.connect())
}

// Reopen is Reconnect for an error that leaves all that is known true.
func (t *Table) Reopen() error { return errors.Join(t.Reconnect(nil), t.ensure()) }

// Remove takes the table away.
func (t *Table) Remove() error {
	b := t.NewBatch()
	b.Add(unix.NFT_MSG_NEWTABLE, netlink.Create, t.name()) // so that there is one
	b.Add(unix.NFT_MSG_DELTABLE, 0, t.name())
	if err := t.Send(b); err != nil {
		return t.Reconnect(fmt.Errorf("remove table inet %s: %w", t.conf.Name, err))
	}
	return nil
}

func (t *Table) name() wire.Attrs {
	var w wire.Attrs
	w.Text(unix.NFTA_TABLE_NAME, t.conf.Name)
	return w
}

// Prepare makes the table and its maps exist, and hands the elements of each
// map to enter. If that says that they cannot be ours, or if something else is
// not as we make it, the table is made anew and reset is called before enter is
// called again.
func (t *Table) Prepare(reset func(), enter func(name string, list []Element) bool) error {
	read := func() (ours bool, err error) {
		reset()
		if err := t.ensure(); err != nil {
			return false, err
		}
		return t.read(enter)
	}
	ours, err := read()
	if err == nil && !ours {
		// Of another version, or tampered with.
		t.conf.Log.Warn("nftables table is not as this version makes it, making it anew", "table", t.conf.Name)
		if err = t.Remove(); err == nil {
			_, err = read()
		}
	}
	if err == nil {
		b := t.NewBatch()
		for _, m := range t.conf.Maps {
			t.addMap(b, m)
		}
		err = t.Send(b)
	}
	if err != nil {
		return t.Reconnect(err)
	}
	return nil
}

func (t *Table) addMap(b *wire.Batch, m Map) {
	if t.maps[m.Name] {
		return
	}
	t.lastID++
	m.add(b, t.lastID)
	t.maps[m.Name] = true
	l := List{Batch: b, Op: unix.NFT_MSG_NEWSETELEM, Name: m.Name}
	for _, k := range m.Fixed {
		l.Add(func(w *wire.Attrs) { Key(w, func(b []byte) []byte { return append(b, k...) }) })
	}
	l.End()
}

// ensure makes the table exist, ours where the kernel can.
func (t *Table) ensure() error {
	add := func(flags uint32) error {
		w := t.name()
		w.U32(unix.NFTA_TABLE_FLAGS, flags)
		b := t.NewBatch()
		b.Add(unix.NFT_MSG_NEWTABLE, netlink.Create, w)
		return t.Send(b)
	}
	if t.conf.Plain {
		t.others.Unprotected()
		return add(0)
	}
	err := add(flagOwner | flagPersist)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL):
		t.conf.Log.Info("kernel knows no owned nftables tables, others may change ours", "table", t.conf.Name)
		t.others.Unprotected()
		return add(0)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("adopt table inet %s: another process owns it, is a second daemon running on this node? %w", t.conf.Name, err)
	}
	return err
}

// Label is the one that a rule asked connections for when the table was read.
func (t *Table) Label() nft.Label { return t.label }

// HasChain reports whether a chain was there when the table was read, or was put.
func (t *Table) HasChain(name string) bool {
	_, exists := t.chains[name]
	return exists
}

// NewBatch returns an empty transaction of this table.
func (t *Table) NewBatch() *wire.Batch { return wire.NewBatch(t.conf.Name) }

// Send hands a batch to the kernel: all of it happens, or nothing.
func (t *Table) Send(b *wire.Batch) error { return b.Send(t.sock) }

// SendInParts sends one that may be too large for a transaction, in order.
func (t *Table) SendInParts(b *wire.Batch) error { return b.SendInParts(t.sock, Largest) }

// Steps writes a change step by step: several in one transaction where they
// fit, and none over two of them unless it alone is too large for one.
func (t *Table) Steps(steps ...func(b *wire.Batch)) error {
	whole := t.NewBatch()
	for _, step := range steps {
		b := t.NewBatch()
		step(b)
		if whole.Size()+b.Size() <= Largest {
			whole.Append(b)
			continue
		}
		if err := t.Send(whole); err != nil {
			return err
		}
		whole = b
		if b.Size() > Largest {
			if err := t.SendInParts(b); err != nil {
				return err
			}
			whole = t.NewBatch()
		}
	}
	return t.Send(whole)
}

// PutChains makes chains as they are wanted, and leaves others alone.
func (t *Table) PutChains(b *wire.Batch, want []nft.Chain) error {
	for _, c := range want {
		if _, ok := t.chains[c.Name]; !ok {
			b.AddChain(c)
		}
	}
	for _, c := range want {
		if err := t.putRules(b, c); err != nil {
			return err
		}
	}
	return nil
}

// putRules replaces a chain's rules as a whole where one differs.
func (t *Table) putRules(b *wire.Batch, c nft.Chain) error {
	var want []wire.Mark
	for _, r := range c.Rules {
		want = append(want, wire.MarkOf(r))
	}
	if slices.Equal(t.chains[c.Name], want) {
		return nil
	}
	if len(t.chains[c.Name]) > 0 {
		b.DropRules(c.Name)
	}
	for _, r := range c.Rules {
		if err := b.AddRule(c.Name, r); err != nil {
			return err
		}
	}
	t.chains[c.Name] = want
	return nil
}
