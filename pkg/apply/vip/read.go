package vip

import (
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/apply/table"
	"poplin.dev/poplin/pkg/program/vip"
)

// mirror is what the kernel holds.
type mirror struct {
	// program is forgotten with the first change: whoever needs it again asks
	// the kernel.
	program       *vip.Program
	picks, clocks map[uint32]bool
	sticky        map[uint32]bool // groups
	// swept: no client is remembered for an endpoint that is gone.
	swept bool
}

func newMirror() *mirror {
	p := vip.New()
	return &mirror{program: &p, picks: map[uint32]bool{}, clocks: map[uint32]bool{}, sticky: map[uint32]bool{}}
}

// known are the chains that draw, which are kept right also where only an
// earlier program needed them.
func (m *mirror) known() []vip.Pick {
	picks := []vip.Pick{0}
	for p := range m.picks {
		picks = append(picks, vip.Pick(p))
	}
	return picks
}

// lacks are the chains that a program's values need and that are not there.
func (m *mirror) lacks(p vip.Program) (picks []vip.Pick, timeouts []uint32) {
	for _, values := range []map[vip.Front]vip.Value{p.Frontends, p.Outside} {
		for _, v := range values {
			if k := v.Pick(); !m.picks[uint32(k)] && !slices.Contains(picks, k) {
				picks = append(picks, k, k.Plain())
			}
		}
	}
	for _, s := range p.Timeouts {
		if !m.clocks[s] && !slices.Contains(timeouts, s) {
			timeouts = append(timeouts, s)
		}
	}
	return picks, timeouts
}

// enter takes over the elements of one map; it reports false for what cannot
// be ours.
func (m *mirror) enter(name string, list []table.Element) bool {
	kind := strings.TrimRight(name, "46")
	if kind == "ranges" {
		table.ReadIntervals(list, func(r table.Interval, _ table.Element) {
			m.program.Ranges[span(r.First, r.Last)] = struct{}{}
		})
		return true
	}
	ok := true
	for _, e := range list {
		ok = m.element(kind, e) && ok
	}
	return ok
}

// element takes over one.
func (m *mirror) element(kind string, e table.Element) bool {
	switch kind {
	case "picks":
		m.picks[table.Host(e.Key)] = true
		return true
	case "clocks":
		m.clocks[table.Host(e.Key)] = true
		return true
	case "endpoints":
		a, ok := readEndpoint(e.Data)
		if ok && len(e.Key) == 8 {
			m.program.Endpoints[vip.Slot{Group: table.Host(e.Key), Index: table.Host(e.Key[4:])}] = a
		}
		return ok
	case "addresses", "hairpins":
		n := len(e.Key)
		if kind == "hairpins" {
			n /= 2
		}
		a, ok := netip.AddrFromSlice(e.Key[:n])
		if kind == "hairpins" {
			m.program.Hairpins[a] = struct{}{}
		} else {
			m.program.Addresses[a] = struct{}{}
		}
		return ok
	case "sources":
		n := (len(e.Key) - 8) / 2
		f, ok := readFront(e.Key[:max(len(e.Key)-n, 0)])
		from, _ := netip.AddrFromSlice(e.Key[len(e.Key)-n:])
		to, _ := netip.AddrFromSlice(e.End[max(len(e.End)-n, 0):])
		m.program.Sources[vip.Source{Front: f, Clients: span(from, to)}] = struct{}{}
		return ok
	}
	f, ok := readFront(e.Key)
	if !ok {
		return false
	}
	switch kind {
	case "frontends":
		m.program.Frontends[f] = vip.Value(table.Host(e.Data))
	case "outside":
		m.program.Outside[f] = vip.Value(table.Host(e.Data))
	case "timeouts":
		m.program.Timeouts[f] = table.Host(e.Data)
	case "fenced":
		m.program.Fenced[f] = struct{}{}
	}
	return true
}

// span is the prefix from one address to another.
func span(from, to netip.Addr) netip.Prefix {
	for bits := range from.BitLen() + 1 {
		if p := netip.PrefixFrom(from, bits); p == p.Masked() && last(p) == to {
			return p
		}
	}
	return netip.Prefix{}
}
