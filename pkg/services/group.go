package services

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/program/vip"
)

// group is a list of endpoints as it lies in the kernel.
type group struct {
	id    uint32
	slots []netip.AddrPort
}

func (k groupKey) compare(o groupKey) int {
	return cmp.Or(k.service.Compare(o.service), cmp.Compare(k.port, o.port), cmp.Compare(k.proto, o.proto),
		rank(k.ipv6)-rank(o.ipv6), rank(k.local)-rank(o.local), rank(k.sticky)-rank(o.sticky))
}

func rank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// setGroup puts the endpoints of a group into slots.
func (t *Table) setGroup(k groupKey, p *plan) {
	g := t.groups[k]
	if g == nil {
		id, before, ok := t.ids.take(k, t.won(p))
		if !ok {
			return // reported by Findings
		}
		g = &group{id: id}
		t.groups[k] = g
		t.reslot(g, arrange(before, p.groups[k]))
		return
	}
	t.reslot(g, arrange(g.slots, p.groups[k]))
}

func (t *Table) dropGroup(k groupKey) {
	if g := t.groups[k]; g != nil {
		t.reslot(g, nil)
		delete(t.groups, k)
		t.ids.free(g.id)
	}
}

func (t *Table) reslot(g *group, slots []netip.AddrPort) {
	for i, a := range slots {
		if i >= len(g.slots) || g.slots[i] != a {
			t.endpoints.Put(vip.Slot{Group: g.id, Index: uint32(i)}, a)
		}
	}
	for i := len(slots); i < len(g.slots); i++ {
		t.endpoints.Remove(vip.Slot{Group: g.id, Index: uint32(i)})
	}
	g.slots = slots
}

// arrange gives every endpoint of want, which are in order, a slot and leaves
// those of before where they are, as far as slots stay without gaps: one
// endpoint more or less costs a slot or two, however many there are.
func arrange(before, want []netip.AddrPort) []netip.AddrPort {
	if len(before) == 0 {
		return want
	}
	slots, placed := make([]netip.AddrPort, len(want)), make([]bool, len(want))
	for i, a := range before[:min(len(before), len(slots))] {
		if j, wanted := slices.BinarySearchFunc(want, a, netip.AddrPort.Compare); wanted && !placed[j] {
			slots[i], placed[j] = a, true
		}
	}
	next := 0
	for i := range slots {
		if slots[i].IsValid() {
			continue
		}
		for placed[next] {
			next++
		}
		slots[i] = want[next]
		next++
	}
	return slots
}

// ids gives groups their numbers. A number is not used again before all
// others were: a packet that read it just before its group went must not find
// another group's endpoints under it.
type ids struct {
	used   map[uint32]bool
	cursor uint32
	// before is what an earlier process left in the kernel: the number and
	// the slots of a front's group, until the front's Service claims them.
	inside, outside map[vip.Front]vip.Value
	slots           map[uint32][]netip.AddrPort
}

// recall reads numbers and slots from a program.
func recall(before vip.Program) ids {
	n := ids{used: map[uint32]bool{}, cursor: vip.FirstGroup}
	if before.Len() == 0 {
		return n // no earlier process to remember
	}
	n.inside, n.outside, n.slots = before.Frontends, before.Outside, map[uint32][]netip.AddrPort{}
	for s, a := range before.Endpoints {
		if int(s.Index) >= len(n.slots[s.Group]) {
			n.slots[s.Group] = append(n.slots[s.Group], make([]netip.AddrPort, int(s.Index)+1-len(n.slots[s.Group]))...)
		}
		n.slots[s.Group][s.Index] = a
		n.cursor = max(n.cursor, s.Group+1)
	}
	return n
}

// won are the fronts that a Service claims and has, in order.
func (t *Table) won(p *plan) []claim {
	if t.ids.inside == nil {
		return nil // no earlier process to remember
	}
	var list []claim
	for _, f := range slices.SortedFunc(maps.Keys(p.entries), compareFronts) {
		if t.claims[f][0] == p {
			list = append(list, claim{f, p.entries[f]})
		}
	}
	return list
}

type claim struct {
	front vip.Front
	entry entry
}

// take returns a number for a group, and the slots it had under it: the
// number under which its fronts found the group before, or else a new one.
func (n *ids) take(k groupKey, won []claim) (uint32, []netip.AddrPort, bool) {
	for _, c := range won {
		for _, was := range []struct {
			to     target
			before vip.Value
		}{{c.entry.inside, n.inside[c.front]}, {c.entry.outside, n.outside[c.front]}} {
			id := was.before.Group()
			if was.to.group != k || was.to.refusal != 0 || was.before.Count() == 0 || was.before.IsSticky() != k.sticky || n.used[id] {
				continue
			}
			n.used[id] = true
			return id, n.slots[id], true
		}
	}
	for range vip.MaxGroups {
		id := n.cursor
		if n.cursor++; n.cursor >= vip.MaxGroups {
			n.cursor = vip.FirstGroup
		}
		if id >= vip.FirstGroup && id < vip.MaxGroups && !n.used[id] && n.slots[id] == nil {
			n.used[id] = true
			return id, nil, true
		}
	}
	return 0, nil, false
}

func (n *ids) free(id uint32) { delete(n.used, id) }

// forget gives up what an earlier process left.
func (n *ids) forget() { n.inside, n.outside, n.slots = nil, nil, nil }
