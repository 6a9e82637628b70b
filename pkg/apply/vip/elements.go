package vip

import (
	"net/netip"

	"poplin.dev/poplin/pkg/apply/table"
	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/program/vip"
)

func frontAddr[V any](f vip.Front, _ V) netip.Addr { return f.Addr }

// fronts writes a map from fronts to numbers, or a set of fronts.
func fronts[V any](b *wire.Batch, op int, name string, m map[vip.Front]V, number func(V) uint32) {
	table.Each(b, op, name, m, frontAddr[V], func(w *wire.Attrs, f vip.Front, v V) {
		table.Key(w, func(b []byte) []byte { return appendFront(b, f) })
		if number != nil {
			table.Data(w, func(b []byte) []byte { return table.AppendHost(b, number(v)) })
		}
	})
}

func endpoints(b *wire.Batch, op int, m map[vip.Slot]netip.AddrPort) {
	table.Each(b, op, "endpoints", m, func(_ vip.Slot, a netip.AddrPort) netip.Addr { return a.Addr() },
		func(w *wire.Attrs, s vip.Slot, a netip.AddrPort) {
			table.Key(w, func(b []byte) []byte { return table.AppendHost(table.AppendHost(b, s.Group), s.Index) })
			table.Data(w, func(b []byte) []byte { return appendEndpoint(b, a) })
		})
}

// rest writes what changes seldom.
func rest(b *wire.Batch, op int, p vip.Program) {
	fronts(b, op, "timeouts", p.Timeouts, func(v uint32) uint32 { return v })
	fronts(b, op, "fenced", p.Fenced, nil)
	table.Each(b, op, "sources", p.Sources, func(s vip.Source, _ struct{}) netip.Addr { return s.Addr },
		func(w *wire.Attrs, s vip.Source, _ struct{}) {
			table.Key(w, func(b []byte) []byte { return table.AppendAddr(appendFront(b, s.Front), s.Clients.Addr()) })
			table.KeyEnd(w, func(b []byte) []byte { return table.AppendAddr(appendFront(b, s.Front), last(s.Clients)) })
		})
	self := func(a netip.Addr, _ struct{}) netip.Addr { return a }
	table.Each(b, op, "addresses", p.Addresses, self, func(w *wire.Attrs, a netip.Addr, _ struct{}) {
		table.Key(w, func(b []byte) []byte { return table.AppendAddr(b, a) })
	})
	table.Each(b, op, "hairpins", p.Hairpins, self, func(w *wire.Attrs, a netip.Addr, _ struct{}) {
		table.Key(w, func(b []byte) []byte { return table.AppendAddr(table.AppendAddr(b, a), a) })
	})
	ranges := make(map[table.Interval]struct{}, len(p.Ranges))
	for r := range p.Ranges {
		ranges[table.Interval{First: r.Addr(), Last: last(r)}] = struct{}{}
	}
	table.Intervals(b, op, "ranges", ranges, nil)
}

func valueNumber(v vip.Value) uint32 { return uint32(v) }
