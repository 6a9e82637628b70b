// Package vip makes the nftables table `inet poplin-services` agree with a
// program of pkg/program/vip, by netlink. Inputs are a program or a change;
// outputs are errors that say what the kernel refused, and what the kernel
// held before. It never flushes at start: it lists what an earlier process
// left and sends the difference. It refuses to touch any other table.
//
// The table is apart from Poplin's other one so that a hundred thousand
// elements burden nobody else's listing, and so that switching Services off
// is removing one table. Where the kernel can (6.9) it is owned by this
// process' socket and outlives it.
package vip

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/monitor"
	"poplin.dev/poplin/pkg/apply/vip/wire"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/nft"
	"poplin.dev/poplin/pkg/program/vip"
)

// Name is the table's name; its family is inet.
const Name = "poplin-services"

// Table flags of linux/netfilter/nf_tables.h that golang.org/x/sys lacks.
const (
	flagOwner   = 0x2 // 5.12
	flagPersist = 0x4 // 6.9
)

const (
	// bufferSize holds the largest batch and its acknowledgements.
	bufferSize = 4 << 20
	// largest is the size at which a batch goes. Smaller changes are one
	// transaction; a start on a large cluster is several.
	largest = bufferSize / 4
)

// Config is how a Table is used.
type Config struct {
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
	mirror *mirror // nil: the kernel must be read first
	lastID uint32
}

// mirror is what the kernel holds.
type mirror struct {
	// program is forgotten with the first change: whoever needs it again asks
	// the kernel.
	program       *vip.Program
	maps          map[string]bool
	chains        map[string][]wire.Mark
	picks, clocks map[uint32]bool
	sticky        map[uint32]bool // groups
	// foreign is set when something in the table is not as we make it.
	foreign bool
	// swept: no client is remembered for an endpoint that is gone.
	swept bool
}

// Open connects to the kernel and changes nothing there.
func Open(conf Config) (*Table, error) {
	others, err := monitor.Open(Name, conf.NetNS)
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

// Forget has the next call read the kernel again.
func (t *Table) Forget() { t.mirror = nil }

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
		return c.Delete.Len() + c.Put.Len(), errors.Join(err, t.reconnect())
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
		return errors.Join(fmt.Errorf("write table inet %s: %w", Name, err), t.reconnect())
	}
	t.mirror.note(c.Put)
	if err := t.expel(c); err != nil {
		return errors.Join(err, t.reconnect())
	}
	return nil
}

// Remove takes the table away.
func (t *Table) Remove() error {
	t.Forget()
	b := wire.NewBatch(Name)
	b.Add(unix.NFT_MSG_NEWTABLE, create, tableName()) // so that there is one
	b.Add(unix.NFT_MSG_DELTABLE, 0, tableName())
	if err := b.Send(t.sock); err != nil {
		return errors.Join(fmt.Errorf("remove table inet %s: %w", Name, err), t.reconnect())
	}
	return nil
}

func tableName() wire.Attrs {
	var w wire.Attrs
	w.Text(unix.NFTA_TABLE_NAME, Name)
	return w
}

// reconnect starts over after an error: answers to the failed batch may still
// sit in the socket and would be taken for those to the next one.
func (t *Table) reconnect() error {
	t.Forget()
	t.sock.Close()
	return t.connect()
}

// prepare makes the table and its fixed parts exist, and the mirror true.
func (t *Table) prepare() error {
	if t.mirror != nil {
		return nil
	}
	err := t.ensure()
	if err == nil {
		err = t.read()
	}
	if err == nil && t.mirror.foreign {
		// Of another version, or tampered with: made anew.
		t.conf.Log.Warn("nftables table is not as this version makes it, making it anew", "table", Name)
		if err = t.Remove(); err == nil {
			if err = t.ensure(); err == nil {
				err = t.read()
			}
		}
	}
	if err == nil {
		err = t.layout()
	}
	if err != nil {
		return errors.Join(err, t.reconnect())
	}
	return nil
}

// ensure makes the table exist, ours where the kernel can.
func (t *Table) ensure() error {
	add := func(flags uint32) error {
		w := tableName()
		w.U32(unix.NFTA_TABLE_FLAGS, flags)
		b := wire.NewBatch(Name)
		b.Add(unix.NFT_MSG_NEWTABLE, create, w)
		return b.Send(t.sock)
	}
	if t.conf.Plain {
		t.others.Unprotected()
		return add(0)
	}
	err := add(flagOwner | flagPersist)
	switch {
	case errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL):
		t.conf.Log.Info("kernel knows no owned nftables tables, others may change ours", "table", Name)
		t.others.Unprotected()
		return add(0)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("adopt table inet %s: another process owns it, is a second daemon running on this node? %w", Name, err)
	}
	return err
}

// layout makes maps, sets and the chains that are always there.
func (t *Table) layout() error {
	b := wire.NewBatch(Name)
	for _, d := range decls() {
		if t.mirror.maps[d.name] {
			continue
		}
		t.lastID++
		addMap(b, d, t.lastID)
		t.mirror.maps[d.name] = true
		if d.name == "protocols" {
			l := list{b: b, op: unix.NFT_MSG_NEWSETELEM, name: d.name}
			for _, p := range []service.Protocol{service.TCP, service.UDP, service.SCTP} {
				l.element(func(w *wire.Attrs) { elemKey(w, func(b []byte) []byte { return append(b, byte(p)) }) })
			}
			l.end()
		}
	}
	// All that earlier programs made are kept right, too.
	var picks []vip.Pick
	for p := range t.mirror.picks {
		picks = append(picks, vip.Pick(p))
	}
	return t.chains(b, append(picks, 0), slices.Collect(maps.Keys(t.mirror.clocks)))
}

// chains brings chains up to date in b, and sends it.
func (t *Table) chains(b *wire.Batch, picks []vip.Pick, timeouts []uint32) error {
	slices.Sort(picks)
	slices.Sort(timeouts)
	want := vip.Chains(slices.Compact(picks), slices.Compact(timeouts))
	for _, c := range want {
		if _, ok := t.mirror.chains[c.Name]; !ok {
			b.AddChain(c)
		}
	}
	for _, c := range want {
		if err := t.rules(b, c); err != nil {
			return err
		}
	}
	for _, p := range picks {
		if !t.mirror.picks[uint32(p)] {
			verdict(b, "picks", uint32(p), p.Chain())
			t.mirror.picks[uint32(p)] = true
		}
	}
	for _, s := range timeouts {
		if !t.mirror.clocks[s] {
			verdict(b, "clocks", s, vip.LearnChain(s))
			t.mirror.clocks[s] = true
		}
	}
	return b.Send(t.sock)
}

// rules replaces a chain's rules as a whole where one differs.
func (t *Table) rules(b *wire.Batch, c nft.Chain) error {
	var want []wire.Mark
	for _, r := range c.Rules {
		want = append(want, wire.MarkOf(r))
	}
	if slices.Equal(t.mirror.chains[c.Name], want) {
		return nil
	}
	if len(t.mirror.chains[c.Name]) > 0 {
		b.DropRules(c.Name)
	}
	for _, r := range c.Rules {
		if err := b.AddRule(c.Name, r); err != nil {
			return err
		}
	}
	t.mirror.chains[c.Name] = want
	return nil
}

// apply sends a change: first what is drawn, then what draws, then what is
// not drawn any more. Where all of it fits one batch, that order is only the
// kernel's.
func (t *Table) apply(c vip.Change) error {
	if err := t.grow(c.Put); err != nil {
		return err
	}
	b := wire.NewBatch(Name)
	del, put := unix.NFT_MSG_DELSETELEM, unix.NFT_MSG_NEWSETELEM
	replaced, gone := split(c)
	for _, step := range []func(){
		func() { endpoints(b, del, replaced) },
		func() { endpoints(b, put, c.Put.Endpoints) },
		func() { rest(b, del, c.Delete) },
		func() { rest(b, put, c.Put) },
		func() { fronts(b, del, "frontends", c.Delete.Frontends, nil) },
		func() { fronts(b, put, "frontends", c.Put.Frontends, valueNumber) },
		func() { fronts(b, del, "outside", c.Delete.Outside, nil) },
		func() { fronts(b, put, "outside", c.Put.Outside, valueNumber) },
		func() { endpoints(b, del, gone) },
	} {
		step()
		if b.Size() <= largest {
			continue
		}
		if err := b.SendInParts(t.sock, largest); err != nil {
			return err
		}
		b = wire.NewBatch(Name)
	}
	return b.Send(t.sock)
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
	var picks []vip.Pick
	for _, m := range []map[vip.Front]vip.Value{p.Frontends, p.Outside} {
		for _, v := range m {
			if k := v.Pick(); !t.mirror.picks[uint32(k)] && !slices.Contains(picks, k) {
				picks = append(picks, k, k.Plain())
			}
		}
	}
	var timeouts []uint32
	for _, s := range p.Timeouts {
		if !t.mirror.clocks[s] && !slices.Contains(timeouts, s) {
			timeouts = append(timeouts, s)
		}
	}
	if len(picks)+len(timeouts) == 0 {
		return nil
	}
	return t.chains(wire.NewBatch(Name), picks, timeouts)
}
