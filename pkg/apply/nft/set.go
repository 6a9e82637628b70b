package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/program"
)

// mirror is what the kernel holds in our table.
type mirror struct {
	sets     map[string]*setMirror
	counters map[string]bool
	chains   map[string]*chainMirror
}

type setMirror struct {
	declared string
	elements map[netip.Prefix]struct{}
}

type chainMirror struct {
	declared string
	rules    []mark
}

// Set makes the module's part of the table agree with want. An empty program
// removes it. What can be one transaction is one: packets see the rules of
// before or of after.
func (t *Table) Set(ctx context.Context, want program.Table) (diff.Result, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := check(want); err != nil {
		return diff.Result{Failed: 1}, err
	}
	if err := ctx.Err(); err != nil {
		return diff.Result{}, err
	}
	if len(want.Sets)+len(want.Chains) == 0 {
		if _, exists, err := t.lookup(); err != nil || !exists {
			return diff.Result{}, err
		}
	}
	if err := t.ensure(); err != nil {
		return diff.Result{Failed: 1}, err
	}
	if t.mirror == nil {
		if err := t.read(); err != nil {
			return diff.Result{Failed: 1}, errors.Join(err, t.reconnect())
		}
	}
	res, err := t.write(want)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EOPNOTSUPP) {
			err = fmt.Errorf("%w (does the kernel lack one of nf_conntrack, nft_chain_nat, nft_masq?)", err)
		}
		return diff.Result{Failed: 1}, errors.Join(fmt.Errorf("write %s rules of table inet %s: %w", want.Module, Name, err), t.reconnect())
	}
	return res, nil
}

// check holds a program to its own name.
func check(want program.Table) error {
	names := want.Counters()
	for _, s := range want.Sets {
		names = append(names, s.Name)
	}
	for _, c := range want.Chains {
		names = append(names, c.Name)
	}
	for _, n := range names {
		if !belongs(n, want.Module) {
			return fmt.Errorf("read program of module %q: the name %q does not start with it", want.Module, n)
		}
	}
	return nil
}

func belongs(name, module string) bool {
	return name == module || strings.HasPrefix(name, module+"-")
}

// read lists our table.
func (t *Table) read() error {
	m := &mirror{sets: map[string]*setMirror{}, counters: map[string]bool{}, chains: map[string]*chainMirror{}}
	sets, err := t.conn.GetSets(t.table)
	if err != nil {
		return fmt.Errorf("list sets of table inet %s: %w", Name, err)
	}
	for _, s := range sets {
		elements, err := t.conn.GetSetElements(s)
		if err != nil {
			return fmt.Errorf("list set %s: %w", s.Name, err)
		}
		sm := &setMirror{declared: declaredSet(s), elements: map[netip.Prefix]struct{}{}}
		prefixes, ok := decodeElements(elements)
		if !ok {
			sm.declared = "" // not as we write them: made anew
		}
		for _, p := range prefixes {
			sm.elements[p] = struct{}{}
		}
		m.sets[s.Name] = sm
	}
	counters, err := t.readCounters()
	if err != nil {
		return err
	}
	for name := range counters {
		m.counters[name] = true
	}
	chains, err := t.conn.ListChainsOfTableFamily(t.table.Family)
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	for _, c := range chains {
		if c.Table.Name != t.table.Name {
			continue
		}
		c.Table = t.table
		rules, err := t.conn.GetRules(t.table, c)
		if err != nil {
			return fmt.Errorf("list rules of chain %s: %w", c.Name, err)
		}
		cm := &chainMirror{declared: declared(c)}
		for _, r := range rules {
			cm.rules = append(cm.rules, markIn(r.UserData))
		}
		m.chains[c.Name] = cm
	}
	t.mirror = m
	return nil
}

// write sends the difference. The order is the kernel's: sets before the
// rules that look into them, chains before the rules that go there, and
// removal the other way round.
func (t *Table) write(want program.Table) (diff.Result, error) {
	b := t.batch()
	var res diff.Result
	if t.reshaped(want) {
		// A set or hook of another kind cannot be changed in place: all of
		// the module goes and comes.
		res = t.remove(b, program.Table{Module: want.Module})
	}
	for _, s := range want.Sets {
		res = res.Plus(t.putSet(b, s))
	}
	for _, name := range want.Counters() {
		if !t.mirror.counters[name] {
			b.addCounter(name)
			t.mirror.counters[name] = true
			res.Added++
		}
	}
	for _, c := range want.Chains {
		if _, ok := t.mirror.chains[c.Name]; !ok {
			b.addChain(c)
			t.mirror.chains[c.Name] = &chainMirror{declared: c.Declaration()}
			res.Added++
		}
	}
	for _, c := range want.Chains {
		res = res.Plus(t.putRules(b, c))
	}
	return res.Plus(t.remove(b, want)), b.commit()
}

// reshaped reports that something exists under a wanted name as another thing.
func (t *Table) reshaped(want program.Table) bool {
	for _, s := range want.Sets {
		if have, ok := t.mirror.sets[s.Name]; ok && have.declared != s.Declaration() {
			return true
		}
	}
	for _, c := range want.Chains {
		if have, ok := t.mirror.chains[c.Name]; ok && have.declared != c.Declaration() {
			return true
		}
	}
	return false
}

func (t *Table) putSet(b *batch, s program.Set) diff.Result {
	var res diff.Result
	have, ok := t.mirror.sets[s.Name]
	if !ok {
		t.lastID++
		b.addSet(s, t.lastID)
		have = &setMirror{declared: s.Declaration()}
		t.mirror.sets[s.Name] = have
		res.Added++
	}
	want := make(map[netip.Prefix]struct{}, len(s.Elements))
	var add, remove []netip.Prefix
	for _, p := range s.Elements {
		want[p] = struct{}{}
		if _, ok := have.elements[p]; !ok {
			add = append(add, p)
		}
	}
	for p := range have.elements {
		if _, ok := want[p]; !ok {
			remove = append(remove, p)
		}
	}
	have.elements = want
	// Old elements go first, in the same transaction: the kernel refuses an
	// interval that overlaps one which is still there.
	b.delElements(s.Name, remove)
	b.addElements(s.Name, add)
	return res.Plus(diff.Result{Added: len(add), Removed: len(remove)})
}

// putRules replaces a chain's rules as a whole where one differs: rules are
// few, and their order is part of their meaning.
func (t *Table) putRules(b *batch, c program.Chain) diff.Result {
	var want []mark
	for _, r := range c.Rules {
		want = append(want, markOf(r))
	}
	have := t.mirror.chains[c.Name]
	if slices.Equal(have.rules, want) {
		return diff.Result{}
	}
	res := diff.Result{Added: len(want), Removed: len(have.rules)}
	if len(have.rules) > 0 {
		b.delRules(c.Name)
	}
	for _, r := range c.Rules {
		b.addRule(c.Name, r)
	}
	have.rules = want
	return res
}

// remove puts into the batch the end of what bears the module's name and is
// not in keep.
func (t *Table) remove(b *batch, keep program.Table) diff.Result {
	kept := map[string]bool{}
	for _, s := range keep.Sets {
		kept[s.Name] = true
	}
	for _, c := range keep.Chains {
		kept[c.Name] = true
	}
	counted := keep.Counters()
	var chains, sets, counters []string
	for name := range t.mirror.chains {
		if belongs(name, keep.Module) && !kept[name] {
			chains = append(chains, name)
		}
	}
	for name := range t.mirror.sets {
		if belongs(name, keep.Module) && !kept[name] {
			sets = append(sets, name)
		}
	}
	for name := range t.mirror.counters {
		if belongs(name, keep.Module) && !slices.Contains(counted, name) {
			counters = append(counters, name)
		}
	}
	for _, name := range chains { // first of all of them: they may go to each other
		b.delRules(name)
	}
	for _, name := range chains {
		b.delChain(name)
		delete(t.mirror.chains, name)
	}
	for _, name := range sets {
		b.delSet(name)
		delete(t.mirror.sets, name)
	}
	for _, name := range counters {
		b.delCounter(name)
		delete(t.mirror.counters, name)
	}
	return diff.Result{Removed: len(chains) + len(sets) + len(counters)}
}
