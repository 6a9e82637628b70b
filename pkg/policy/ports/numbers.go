package ports

import (
	"slices"

	"poplin.dev/poplin/pkg/program/permit"
)

// Numbers are those of the sets in use.
type Numbers struct {
	bySet   map[string]*number
	byPorts map[permit.Ports]*number
	last    permit.Ports
}

// number is a set as the kernel has it.
type number struct {
	set   string
	ports permit.Ports
	spans []permit.Span
	users int
}

// NewNumbers returns an empty list of numbers.
func NewNumbers() Numbers {
	return Numbers{bySet: map[string]*number{}, byPorts: map[permit.Ports]*number{}, last: permit.FirstPorts - 1}
}

// Avoid has new numbers begin behind p.
func (n *Numbers) Avoid(p permit.Ports) {
	if !p.IsEverything() {
		n.last = max(n.last, p&permit.MaxPorts)
	}
}

// Join returns the number of a set and its elements, and counts a user more.
func (n *Numbers) Join(s Set) (permit.Ports, []permit.Span) {
	key := s.Key()
	found := n.bySet[key]
	if found == nil {
		found = n.number(s)
		found.set = key
		n.bySet[key], n.byPorts[found.ports] = found, found
	}
	found.users++
	return found.ports, found.spans
}

// Leave counts a user less; it returns the elements that go with the last.
func (n *Numbers) Leave(p permit.Ports) []permit.Span {
	old := n.byPorts[p]
	if old.users--; old.users > 0 {
		return nil
	}
	delete(n.bySet, old.set)
	delete(n.byPorts, p)
	return old.spans
}

func (n *Numbers) number(s Set) *number {
	switch {
	case len(s) == 0:
		return &number{ports: permit.Nothing}
	case slices.Equal(s, Everything):
		return &number{ports: permit.Everything}
	}
	out := &number{ports: n.next()}
	if s[len(s)-1].last == others {
		out.ports = out.ports.WithOthers()
	}
	for i, proto := range Protocols {
		base := uint32(i * perProtocol)
		for _, p := range s.And(Set{{base, base + perProtocol - 1}}) {
			out.spans = append(out.spans, permit.Span{
				Ports: out.ports, Proto: proto, First: uint16(p.first - base), Last: uint16(p.last - base),
			})
		}
	}
	return out
}

// next is a number that is not in use, and not one that has just become free:
// a packet on its way between two lookups must not meet an old number with a
// new meaning.
func (n *Numbers) next() permit.Ports {
	for {
		if n.last++; n.last > permit.MaxPorts {
			n.last = permit.FirstPorts
		}
		if n.byPorts[n.last] == nil && n.byPorts[n.last.WithOthers()] == nil {
			return n.last
		}
	}
}
