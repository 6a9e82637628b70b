// Package permit makes the nftables table `inet poplin-policy` agree with a
// program of pkg/program/permit, by netlink. Inputs are a program or a change;
// outputs are errors that say what the kernel refused, and what the kernel
// held before. It never flushes at start: it lists what an earlier process
// left and sends the difference. It refuses to touch any other table.
package permit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/table"
	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/program/nft"
	"poplin.dev/poplin/pkg/program/permit"
)

// Name is the table's name; its family is inet.
const Name = "poplin-policy"

// Config is how a Table is used.
type Config struct {
	// Plain makes a table without owner, as on a kernel that knows none, and
	// Unlabelled one for connections without labels, likewise.
	Plain, Unlabelled bool
	// LogDrops has packets that are dropped told to permit.LogGroup, which
	// the kernel must know.
	LogDrops bool
	// Keep lets connections that exist go on whatever changes.
	Keep bool
	// NetNS is a descriptor of the network namespace; 0 is the caller's.
	NetNS int
	Log   *slog.Logger
}

// Table is the kernel's table.
type Table struct {
	conf   Config
	kernel *table.Table
	// epoch is the one that the kernel's rules name, 0 before they are known.
	epoch permit.Epoch
	// turned is false before this process' first epoch: the last one may have
	// ended between a change and its epoch.
	turned bool
	// gap is true from when the kernel was found without the rules until Mended.
	gap bool
	// held is what the kernel holds; nil: it must be read first.
	held *permit.Program
}

// Open connects to the kernel and changes nothing there.
func Open(conf Config) (*Table, error) {
	kernel, err := table.Open(table.Config{
		Name: Name, Maps: layout(), Hooked: permit.Chains(permit.State{}), Plain: conf.Plain, NetNS: conf.NetNS, Log: conf.Log,
	})
	if err != nil {
		return nil, err
	}
	return &Table{conf: conf, kernel: kernel}, nil
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
	if err := t.prepare(); err != nil || c.Empty() && t.turned {
		return err
	}
	if err := t.change(c); err != nil {
		t.Forget()
		return t.kernel.Reconnect(fmt.Errorf("write table inet %s: %w", Name, err))
	}
	return nil
}

// change makes a change, begins an epoch, and then takes away what nothing leads
// to any more, once no packet is on its way there. A process that ends before
// leaves that to the next one. Each step is a transaction, or several. A packet on
// its way between two lookups may meet one of before a commit and one of after it,
// and the kernel swaps intervals of concatenations a moment after the rest (6.18):
// so what is looked up last comes first, but for pairs that packets are led away
// from: those wait until that is done. Numbers are not used twice.
func (t *Table) change(c permit.Change) error {
	goingOut, goingIn := gone(c.Delete.Egress, c.Put.Egress), gone(c.Delete.Ingress, c.Put.Ingress)
	c.Apply(*t.held)
	classes := left(c, *t.held)
	lateOut, earlyOut := unled(goingOut, t.held.Senders, classes)
	lateIn, earlyIn := unled(goingIn, t.held.Receivers, classes)
	m := moved(c, *t.held)
	firstOut, lastOut := m.split(c.Delete.Egress, c.Put.Egress, t.held.Egress, earlyOut)
	firstIn, lastIn := m.split(c.Delete.Ingress, c.Put.Ingress, t.held.Ingress, earlyIn)
	err := t.inTurn([][]func(*wire.Batch){
		{func(b *wire.Batch) { spans(b, table.Put, c.Put.Ports) }},
		append(replace(portions(c.Delete.Egress, firstOut), "egress", pairs),
			replace(portions(c.Delete.Ingress, firstIn), "ingress", pairs)...),
		append(replace(portions(c.Delete.Peers, c.Put.Peers), "peers", peers),
			func(b *wire.Batch) { ranges(b, table.Delete, c.Delete.Ranges); ranges(b, table.Put, c.Put.Ranges) },
			func(b *wire.Batch) { peers(b, table.Delete, "peers", gone(c.Delete.Peers, c.Put.Peers)) }),
		{func(b *wire.Batch) { isolation(b, table.Delete, c.Delete); isolation(b, table.Put, c.Put) }},
	})
	if err == nil && len(lastOut)+len(lastIn)+len(earlyOut)+len(earlyIn) > 0 {
		grace()
		err = t.inTurn([][]func(*wire.Batch){
			append(replace(portions(c.Delete.Egress, lastOut), "egress", pairs),
				replace(portions(c.Delete.Ingress, lastIn), "ingress", pairs)...),
			{func(b *wire.Batch) { pairs(b, table.Delete, "egress", earlyOut) },
				func(b *wire.Batch) { pairs(b, table.Delete, "ingress", earlyIn) }},
		})
	}
	if err == nil {
		err = t.turn()
	}
	if err != nil || len(lateOut)+len(lateIn)+len(c.Delete.Ports) == 0 {
		return err
	}
	grace()
	return t.inTurn([][]func(*wire.Batch){
		{func(b *wire.Batch) { pairs(b, table.Delete, "egress", lateOut) },
			func(b *wire.Batch) { pairs(b, table.Delete, "ingress", lateIn) }},
		{func(b *wire.Batch) { spans(b, table.Delete, c.Delete.Ports) }},
	})
}

// inTurn writes lists of steps, of which no two share a transaction.
func (t *Table) inTurn(lists [][]func(*wire.Batch)) error {
	for _, steps := range lists {
		if err := t.kernel.Steps(steps...); err != nil {
			return err
		}
	}
	return nil
}

// turn begins an epoch when all of a change is in place: some kinds of maps
// change a moment after the others, and what was decided in that moment is
// decided again.
func (t *Table) turn() error {
	t.epoch = t.next()
	b := t.kernel.NewBatch()
	if err := t.kernel.PutChains(b, []nft.Chain{permit.Forward(t.state(*t.held))}); err != nil {
		return err
	}
	err := t.kernel.Send(b)
	t.turned = t.turned || err == nil
	return err
}

// Drops are how many packets policies have dropped by direction, egress and
// ingress, since the table or its rules were made. It asks through a socket of
// its own, and may run beside everything else; netns is as in Config.
func Drops(netns int) (map[string]uint64, error) {
	counts, err := table.Counts(Name, netns)
	if err != nil || len(counts) == 0 {
		return nil, err
	}
	byDirection := map[string]uint64{"egress": 0, "ingress": 0}
	for chain, n := range counts {
		if egress, _ := permit.Dropping(chain); egress {
			byDirection["egress"] += n
		} else {
			byDirection["ingress"] += n
		}
	}
	return byDirection, nil
}

// chains are the rules of this epoch for a program.
func (t *Table) chains(p permit.Program) []nft.Chain {
	list := permit.Chains(t.state(p))
	if t.conf.LogDrops {
		return permit.Logging(list)
	}
	return list
}

func (t *Table) state(p permit.Program) permit.State {
	return permit.State{Epoch: t.epoch, Isolating: p.Isolating(), Keeping: t.conf.Keep}
}

// Gap reports whether packets passed without rules before this process, or the
// one before that did not get so far, had made them: connection tracking may
// have met connections in the middle. It is true until Mended.
func (t *Table) Gap() bool { return t.gap && t.turned }

// Mended ends the gap.
func (t *Table) Mended() { t.gap = false }

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
	if t.epoch == 0 {
		t.epoch = permit.EpochOf(t.kernel.Label())
	}
	if t.epoch == 0 { // named by no rule
		t.epoch = t.next()
	}
	chains := func() []nft.Chain { return t.chains(p) }
	if hooked := permit.Forward(permit.State{}).Name; !t.kernel.HasChain(hooked) {
		t.gap = true
		if !p.Isolating() {
			// The chain that packets come to is made with the first epoch. A
			// process that ends before leaves the next one the gap to see.
			chains = func() []nft.Chain {
				return slices.DeleteFunc(t.chains(p), func(c nft.Chain) bool { return c.Name == hooked })
			}
		}
	}
	b := t.kernel.NewBatch()
	err = t.kernel.PutChains(b, chains())
	if err == nil && b.Size() > 0 {
		// Made anew, and who knows what passed meanwhile.
		t.epoch = t.next()
		err = t.kernel.PutChains(b, chains())
	}
	if err == nil {
		err = t.kernel.Send(b)
	}
	if errors.Is(err, unix.EOPNOTSUPP) && !t.conf.Unlabelled {
		t.conf.Log.Info("kernel knows no labels of connections, every packet is looked up", "table", Name)
		t.conf.Unlabelled, t.epoch = true, 0
		return errors.Join(t.kernel.Reconnect(nil), t.prepare())
	}
	if err != nil {
		return t.kernel.Reconnect(err)
	}
	t.held = &p
	return nil
}

// next is an epoch that no connection of this machine carries the label of.
func (t *Table) next() permit.Epoch {
	if t.conf.Unlabelled {
		return 0
	}
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // on Linux there is one
	return max(t.epoch+1, permit.Epoch(now.Nano()/int64(time.Millisecond)))
}

// portion is how many elements are replaced at a time: each is gone and back
// in one transaction.
const portion = 4096

// exchange is elements that come, some of them in place of others.
type exchange[K comparable, V any] struct{ old, now map[K]V }

// portions cuts what comes into portions.
func portions[K comparable, V any](del, put map[K]V) (list []exchange[K, V]) {
	for k, v := range put {
		if n := len(list); n == 0 || len(list[n-1].now) == portion {
			list = append(list, exchange[K, V]{map[K]V{}, map[K]V{}})
		}
		last := list[len(list)-1]
		last.now[k] = v
		if old, there := del[k]; there {
			last.old[k] = old
		}
	}
	return list
}

// gone is what goes and does not come again.
func gone[K comparable, V any](del, put map[K]V) map[K]V {
	out := map[K]V{}
	for k, v := range del {
		if _, again := put[k]; !again {
			out[k] = v
		}
	}
	return out
}

func replace[K comparable, V any](list []exchange[K, V], name string, write func(b *wire.Batch, op int, name string, m map[K]V)) (steps []func(*wire.Batch)) {
	for _, x := range list {
		steps = append(steps, func(b *wire.Batch) {
			write(b, table.Delete, name, x.old)
			write(b, table.Put, name, x.now)
		})
	}
	return steps
}
