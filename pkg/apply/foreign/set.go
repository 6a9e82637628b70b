package foreign

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"poplin.dev/poplin/pkg/facts"
)

// mostElements bounds what is read of other programs' sets.
const mostElements = 5000

// sets reads what rules look up, each set once.
type sets struct {
	conn  *nftables.Conn
	left  int // elements that may still be read
	known map[string][]span
}

// span is a range of a field's values, as they are in packets.
type span struct{ first, last []byte }

// of is nil for a set that cannot be read, or is too large.
func (s *sets) of(t *nftables.Table, name string) []span {
	key := place(t.Family, t.Name, name)
	if list, read := s.known[key]; read {
		return list
	}
	var list []span
	if all, err := s.conn.GetSetElements(&nftables.Set{Table: t, Name: name}); err == nil && len(all) <= s.left {
		s.left -= len(all)
		list = spans(all)
	}
	s.known[key] = list
	return list
}

// spans are the elements of a set; it is not nil. A set of intervals lists where each
// begins, and where what is not in it begins again.
func spans(all []nftables.SetElement) []span {
	list := []span{}
	isEnd := func(e nftables.SetElement) bool { return e.IntervalEnd }
	if !slices.ContainsFunc(all, isEnd) {
		for _, e := range all {
			list = append(list, span{e.Key, e.Key})
		}
		return list
	}
	// Of an end and a beginning at the same value, the end is first.
	slices.SortStableFunc(all, func(a, b nftables.SetElement) int {
		if a.IntervalEnd && !b.IntervalEnd && bytes.Equal(a.Key, b.Key) {
			return -1
		}
		return bytes.Compare(a.Key, b.Key)
	})
	var open []byte
	for _, e := range all {
		if open != nil {
			list = append(list, span{open, before(e.Key)})
		}
		if open = e.Key; e.IntervalEnd {
			open = nil
		}
	}
	if open != nil {
		list = append(list, span{open, bytes.Repeat([]byte{0xff}, len(open))})
	}
	return list
}

// before is the value before one, which is not 0.
func before(v []byte) []byte {
	v = slices.Clone(v)
	for i := len(v) - 1; i >= 0; i-- {
		if v[i]--; v[i] != 0xff {
			break
		}
	}
	return v
}

// sizes of fields, in bytes.
var sizes = map[string]int{"saddr4": 4, "daddr4": 4, "saddr6": 16, "daddr6": 16, "sport": 2, "dport": 2, "protocol": 1}

// lookup reads a field that is looked up in a set; what a map says of it is not
// followed.
func (w *reading) lookup(e *expr.Lookup) {
	what := w.what[e.SourceRegister]
	size, known := sizes[what]
	var list []span
	if known && !e.IsDestRegSet && w.mask[e.SourceRegister] == nil {
		list = w.sets.of(w.table, e.SetName)
	}
	if list == nil || slices.ContainsFunc(list, func(s span) bool { return len(s.first) != size }) {
		w.obscure("in set " + e.SetName)
		return
	}
	m := facts.SetMatch{Field: strings.TrimRight(what, "46"), Not: e.Invert}
	if !strings.HasPrefix(e.SetName, "__") {
		m.Name = e.SetName
	}
	for _, s := range list {
		if size < 4 {
			m.Numbers = append(m.Numbers, facts.NumMatch{Low: number(s.first), High: number(s.last)})
			continue
		}
		first, _ := netip.AddrFromSlice(s.first)
		last, _ := netip.AddrFromSlice(s.last)
		m.Addrs = append(m.Addrs, facts.AddrRange{First: first, Last: last})
	}
	if size >= 4 {
		w.Family = map[int]int{4: 4, 16: 6}[size]
	}
	w.Sets = append(w.Sets, m)
}
