package policy

import (
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/policy/peers"
	"poplin.dev/poplin/pkg/policy/ports"
	"poplin.dev/poplin/pkg/policy/verdict"
	"poplin.dev/poplin/pkg/program/elements"
	"poplin.dev/poplin/pkg/program/permit"
)

var directions = []verdict.Direction{verdict.Ingress, verdict.Egress}

// settle compiles what is dirty: profiles of pods first, because they say
// which groups there are; then who is in which group; then the classes of
// addresses; and last what pods and classes may do.
func (t *Table) settle() {
	changed := t.settleProfiles()
	t.settleGroups()
	for a := range t.dirty.addrs {
		t.settleAddress(a)
	}
	if t.dirty.ranges {
		t.settleRanges()
	}
	t.settlePairs(changed)
	t.dirty = newDirty()
}

// settleProfiles returns the pods for which it now says something else.
func (t *Table) settleProfiles() map[policy.Key]bool {
	changed := map[policy.Key]bool{}
	for k := range t.dirty.subjects {
		old := t.subjects[k]
		next := t.newSubject(k)
		if next != nil {
			for d := range next.profiles {
				next.profiles[d].Users++
			}
			t.subjects[k] = next
		} else {
			delete(t.subjects, k)
		}
		if old != nil {
			for d := range old.profiles {
				t.dropProfile(old.profiles[d])
			}
			t.retire(old, next)
		}
		changed[k] = next != nil
	}
	return changed
}

// newSubject is nil for what is no pod of this node.
func (t *Table) newSubject(k policy.Key) *subject {
	p := t.pods[k]
	if p == nil || p.Node != t.node {
		return nil
	}
	s := &subject{}
	for _, a := range p.Addresses {
		if owner := t.holders[a].owner(); owner == p {
			s.addrs = append(s.addrs, a)
		}
	}
	for _, d := range directions {
		s.profiles[d] = t.profile(p, d)
	}
	return s
}

// retire removes the elements of addresses that a subject has no more, or no
// more policies for.
func (t *Table) retire(old, next *subject) {
	for _, a := range old.addrs {
		stays := next != nil && slices.Contains(next.addrs, a)
		for _, d := range directions {
			if stays && next.profiles[d].Applies() || !old.profiles[d].Applies() {
				continue
			}
			t.isolated(d).Remove(a)
			t.setPair(d, permit.Pair{Pod: a}, nil, false)
			t.classes.All(func(c *peers.Class) { t.setPair(d, permit.Pair{Pod: a, Class: c.ID}, nil, false) })
		}
		if !stays || !next.profiles[verdict.Ingress].Applies() && !next.profiles[verdict.Egress].Applies() {
			t.loops.Remove(a)
		}
	}
}

func (t *Table) isolated(d verdict.Direction) elements.Map[netip.Addr, struct{}] {
	if d == verdict.Egress {
		return t.senders
	}
	return t.receivers
}

// owner is the pod that has the address; nil if none has.
func (h *holder) owner() *pod {
	if n := len(h.pods); n > 0 {
		return h.pods[n-1]
	}
	return nil
}

// settleGroups brings up to date who is in which group.
func (t *Table) settleGroups() {
	for g := range t.dirty.groups {
		if g.Users > 0 {
			t.enrol(g)
		}
	}
	gone := false
	for key, g := range t.groups {
		if g.Users == 0 {
			gone = true
			delete(t.groups, key)
			if !t.dirty.groups[g] {
				t.expel(g)
			}
		}
	}
	if len(t.dirty.groups) > 0 || gone {
		t.sortGroups()
	}
	for k := range t.dirty.pods {
		if p := t.pods[k]; p != nil {
			t.regroup(p)
		}
	}
}

// sortGroups notes which groups can have which members.
func (t *Table) sortGroups() {
	t.within, t.wide, t.blocks = map[string][]*peers.Group{}, nil, nil
	for _, g := range t.groups {
		if len(g.Blocks) > 0 {
			t.blocks = append(t.blocks, g)
		}
		for _, name := range g.Namespaces() {
			if name == "" {
				t.wide = append(t.wide, g)
			} else {
				t.within[name] = append(t.within[name], g)
			}
		}
	}
}

// enrol looks for the members of a new group.
func (t *Table) enrol(g *peers.Group) {
	for k, p := range t.pods {
		if !t.dirty.pods[k] && g.HasPod(p.Pod, t.namespaces[k.Namespace]) && g.HasPort(p.Pod) {
			p.groups = inserted(p.groups, g.ID)
			t.touchAll(p.Addresses)
		}
	}
	for _, n := range t.nodes {
		if g.HasNode(n.Node) {
			n.groups = inserted(n.groups, g.ID)
			t.touchAll(n.Addresses)
		}
	}
	t.touchBlocks(g)
}

// expel takes a group away from its members.
func (t *Table) expel(g *peers.Group) {
	for _, p := range t.pods {
		if i, found := slices.BinarySearch(p.groups, g.ID); found {
			p.groups = slices.Delete(p.groups, i, i+1)
			t.touchAll(p.Addresses)
		}
	}
	for _, n := range t.nodes {
		if i, found := slices.BinarySearch(n.groups, g.ID); found {
			n.groups = slices.Delete(n.groups, i, i+1)
			t.touchAll(n.Addresses)
		}
	}
	t.touchBlocks(g)
}

func (t *Table) touchBlocks(g *peers.Group) {
	if len(g.Blocks) == 0 {
		return
	}
	t.dirty.ranges = true
	for a := range t.holders {
		if g.HasAddress(a) {
			t.dirty.addrs[a] = true
		}
	}
}

func (t *Table) touchAll(list []netip.Addr) {
	for _, a := range list {
		t.dirty.addrs[a] = true
	}
}

func inserted(list []int, id int) []int {
	i, found := slices.BinarySearch(list, id)
	if found {
		return list
	}
	return slices.Insert(list, i, id)
}

// regroup finds the groups of a pod anew.
func (t *Table) regroup(p *pod) {
	p.groups = p.groups[:0]
	labels := t.namespaces[p.Namespace]
	for _, list := range [][]*peers.Group{t.within[p.Namespace], t.wide} {
		for _, g := range list {
			if g.HasPod(p.Pod, labels) && g.HasPort(p.Pod) {
				p.groups = append(p.groups, g.ID)
			}
		}
	}
	slices.Sort(p.groups)
	p.groups = slices.Compact(p.groups)
	t.touchAll(p.Addresses)
}

// settleAddress gives an address its class.
func (t *Table) settleAddress(a netip.Addr) {
	h := t.holders[a]
	owner := h.owner()
	if owner == nil && len(h.nodes) == 0 {
		t.classes.Leave(h.class)
		t.peers.Remove(a)
		delete(t.holders, a)
		return
	}
	next := t.classes.Join(t.groupsOf(a, owner, h.nodes))
	t.classes.Leave(h.class)
	h.class = next
	if next == t.classes.None {
		t.peers.Remove(a)
	} else {
		t.peers.Put(a, next.ID)
	}
}

// groupsOf are the groups that an address is in.
func (t *Table) groupsOf(a netip.Addr, owner *pod, nodes []*node) []int {
	var ids []int
	if owner != nil {
		ids = append(ids, owner.groups...)
	}
	for _, n := range nodes {
		ids = append(ids, n.groups...)
	}
	for _, g := range t.blocks {
		if g.HasAddress(a) && (g.Port == nil || owner != nil && g.HasPort(owner.Pod)) {
			ids = append(ids, g.ID)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// settleRanges cuts the ipBlocks anew.
func (t *Table) settleRanges() {
	blocks := slices.DeleteFunc(slices.Clone(t.blocks), func(g *peers.Group) bool { return g.Port != nil })
	next := map[permit.Range]*peers.Class{}
	peers.Segments(blocks, func(r permit.Range, ids []int) {
		c := t.classes.Join(ids)
		next[r] = c
		t.ranges.Put(r, c.ID)
	})
	for r, c := range t.segments {
		t.classes.Leave(c)
		if next[r] == nil {
			t.ranges.Remove(r)
		}
	}
	t.segments = next
}

// settlePairs brings up to date what pods and classes may do: everything of
// the pods that have changed, and what new classes mean to the others.
func (t *Table) settlePairs(changed map[policy.Key]bool) {
	t.classes.Bury(func(c *peers.Class) {
		for _, s := range t.subjects {
			t.eachPair(s, c, func(d verdict.Direction, pair permit.Pair) { t.setPair(d, pair, nil, false) })
		}
		for _, p := range t.profiles {
			p.Forget(c)
		}
	})
	for k, here := range changed {
		if !here {
			continue
		}
		s := t.subjects[k]
		for _, a := range s.addrs {
			for _, d := range directions {
				if s.profiles[d].Applies() {
					t.isolated(d).Put(a, struct{}{})
					t.loops.Put(a, struct{}{})
				}
			}
		}
		t.decide(s, t.classes.None)
		t.classes.All(func(c *peers.Class) { t.decide(s, c) })
	}
	for k, s := range t.subjects {
		if changed[k] {
			continue
		}
		for c := range t.classes.Born {
			t.decide(s, c)
		}
	}
	clear(t.classes.Born)
}

func (t *Table) eachPair(s *subject, c *peers.Class, each func(verdict.Direction, permit.Pair)) {
	for _, d := range directions {
		for _, a := range s.addrs {
			if s.profiles[d].Applies() {
				each(d, permit.Pair{Pod: a, Class: c.ID})
			}
		}
	}
}

// decide enters what a class may do with a pod. Where it may do what everybody
// may, there is no element.
func (t *Table) decide(s *subject, c *peers.Class) {
	t.eachPair(s, c, func(d verdict.Direction, pair permit.Pair) {
		anybody, may := s.profiles[d].Decide(t.classes.None), s.profiles[d].Decide(c)
		if c == t.classes.None {
			t.setPair(d, pair, may, len(may) > 0)
		} else {
			t.setPair(d, pair, may, !slices.Equal(may, anybody))
		}
	})
}

// setPair enters or removes one element, and the numbers of its ports.
func (t *Table) setPair(d verdict.Direction, pair permit.Pair, may ports.Set, there bool) {
	old, had := t.pairs[d].Now()[pair]
	if there {
		number, spans := t.numbers.Join(may)
		for _, s := range spans {
			t.ports.Put(s, struct{}{})
		}
		t.pairs[d].Put(pair, number)
	} else {
		t.pairs[d].Remove(pair)
	}
	if had {
		for _, s := range t.numbers.Leave(old) {
			t.ports.Remove(s)
		}
	}
}
