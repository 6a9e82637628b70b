package peers

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/program/permit"
)

// Class is addresses that are in the same groups.
type Class struct {
	ID     permit.Class
	groups []int // their ids, in order
	users  int
}

// Has reports whether a class is in a group; nil is the group of everybody.
func (c *Class) Has(g *Group) bool {
	if g == nil {
		return true
	}
	_, found := slices.BinarySearch(c.groups, g.ID)
	return found
}

// Classes are the known ones by their groups. The class of no groups is
// always there: it is number 0.
type Classes struct {
	byGroups map[string]*Class
	// None is in no group.
	None *Class
	last permit.Class
	used map[permit.Class]bool
	// Born are the classes made since somebody last cleared it.
	Born map[*Class]bool
	dead map[*Class]bool
}

// NewClasses holds the one class that is nobody's.
func NewClasses() Classes {
	none := &Class{users: 1}
	return Classes{
		byGroups: map[string]*Class{"": none}, None: none,
		used: map[permit.Class]bool{0: true}, Born: map[*Class]bool{}, dead: map[*Class]bool{},
	}
}

// Avoid has new numbers begin behind c.
func (c *Classes) Avoid(number permit.Class) { c.last = max(c.last, number) }

// Join returns the class of a list of groups and counts one more user.
func (c *Classes) Join(groups []int) *Class {
	key := make([]byte, 0, 4*len(groups))
	for _, g := range groups {
		key = binary.NativeEndian.AppendUint32(key, uint32(g))
	}
	found := c.byGroups[string(key)]
	if found == nil {
		// The next number, not the lowest: a packet on its way between two
		// lookups must not meet an old number with a new meaning.
		for c.last++; c.used[c.last]; c.last++ {
		}
		found = &Class{ID: c.last, groups: groups}
		c.used[found.ID] = true
		c.byGroups[string(key)] = found
		c.Born[found] = true
	}
	if found.users == 0 {
		delete(c.dead, found)
	}
	found.users++
	return found
}

// Leave counts one user less.
func (c *Classes) Leave(old *Class) {
	if old == nil {
		return
	}
	if old.users--; old.users == 0 {
		c.dead[old] = true
	}
}

// Bury forgets the classes that nobody has used since they were left.
func (c *Classes) Bury(each func(*Class)) {
	for old := range c.dead {
		key := make([]byte, 0, 4*len(old.groups))
		for _, g := range old.groups {
			key = binary.NativeEndian.AppendUint32(key, uint32(g))
		}
		delete(c.byGroups, string(key))
		delete(c.used, old.ID)
		if !c.Born[old] {
			each(old)
		}
		delete(c.Born, old)
	}
	c.dead = map[*Class]bool{}
}

// All calls each for every class but none.
func (c *Classes) All(each func(*Class)) {
	for _, k := range c.byGroups {
		if k != c.None {
			each(k)
		}
	}
}

// Segments cuts the address space at the borders of the groups' blocks and
// calls each for the parts that are in any group, in order. Groups are those
// whose blocks count for addresses that are no pod's.
func Segments(groups []*Group, each func(r permit.Range, ids []int)) {
	type edge struct {
		at    netip.Addr
		group int
		open  bool
	}
	var edges []edge
	for _, g := range groups {
		for _, r := range g.Blocks {
			edges = append(edges, edge{r.First, g.ID, true})
			// A range that ends with the address space needs no end.
			if next := r.Last.Next(); next.IsValid() {
				edges = append(edges, edge{next, g.ID, false})
			}
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return a.at.Compare(b.at) })
	var inside []int // ids, in order
	for i, e := range edges {
		if i > 0 && e.at.BitLen() != edges[i-1].at.BitLen() {
			inside = nil
		}
		at, found := slices.BinarySearch(inside, e.group)
		switch {
		case e.open && !found:
			inside = slices.Insert(inside, at, e.group)
		case !e.open && found:
			inside = slices.Delete(inside, at, at+1)
		}
		if i+1 < len(edges) && edges[i+1].at == e.at || len(inside) == 0 {
			continue
		}
		last := lastOf(e.at)
		if i+1 < len(edges) && edges[i+1].at.BitLen() == e.at.BitLen() {
			last = edges[i+1].at.Prev()
		}
		each(permit.Range{First: e.at, Last: last}, slices.Clone(inside))
	}
}

// lastOf is the last address of a's family.
func lastOf(a netip.Addr) netip.Addr { return rangeOf(netip.PrefixFrom(a, 0)).Last }
