package vip

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/vip/wire"
	"poplin.dev/poplin/pkg/program/vip"
)

const create = netlink.Create

// A list of elements is one netlink attribute, whose length is 16 bits: what
// is longer the kernel would cut off without a word.
const fullList = 60_000

// list writes elements of one map, over as many messages as it takes.
type list struct {
	b    *wire.Batch
	op   int
	name string
	w    wire.Attrs
	at   int
}

func (l *list) element(body func(w *wire.Attrs)) {
	if len(l.w) == 0 {
		l.w = make(wire.Attrs, 0, 4096)
		l.w.Text(unix.NFTA_SET_ELEM_LIST_TABLE, l.b.Table())
		l.w.Text(unix.NFTA_SET_ELEM_LIST_SET, l.name)
		l.at = l.w.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	}
	elem := l.w.Nest(unix.NFTA_LIST_ELEM)
	body(&l.w)
	l.w.Close(elem)
	if len(l.w) > fullList {
		l.end()
	}
}

func (l *list) end() {
	if len(l.w) == 0 {
		return
	}
	l.w.Close(l.at)
	flags := netlink.HeaderFlags(0)
	if l.op == unix.NFT_MSG_NEWSETELEM {
		flags = create
	}
	l.b.Add(l.op, flags, l.w)
	l.w = nil
}

// lists writes the elements of a map, of which each family has its own.
func lists[K comparable, V any](b *wire.Batch, op int, name string, m map[K]V, addr func(K, V) netip.Addr, body func(w *wire.Attrs, k K, v V)) {
	if len(m) == 0 {
		return
	}
	of := map[string]*list{"4": {b: b, op: op, name: name + "4"}, "6": {b: b, op: op, name: name + "6"}}
	for k, v := range m {
		of[suffix(addr(k, v))].element(func(w *wire.Attrs) { body(w, k, v) })
	}
	of["4"].end()
	of["6"].end()
}

// value writes key or data.
func value(w *wire.Attrs, kind uint16, write func([]byte) []byte) {
	outer := w.Nest(kind)
	inner := w.Open(unix.NFTA_DATA_VALUE)
	*w = write(*w)
	w.Close(inner)
	w.Close(outer)
}

func elemKey(w *wire.Attrs, write func([]byte) []byte)  { value(w, unix.NFTA_SET_ELEM_KEY, write) }
func elemData(w *wire.Attrs, write func([]byte) []byte) { value(w, unix.NFTA_SET_ELEM_DATA, write) }

func frontAddr[V any](f vip.Front, _ V) netip.Addr { return f.Addr }

// fronts writes a map from fronts to numbers, or a set of fronts.
func fronts[V any](b *wire.Batch, op int, name string, m map[vip.Front]V, number func(V) uint32) {
	lists(b, op, name, m, frontAddr[V], func(w *wire.Attrs, f vip.Front, v V) {
		elemKey(w, func(b []byte) []byte { return appendFront(b, f) })
		if number != nil {
			elemData(w, func(b []byte) []byte { return appendHost(b, number(v)) })
		}
	})
}

func endpoints(b *wire.Batch, op int, m map[vip.Slot]netip.AddrPort) {
	lists(b, op, "endpoints", m, func(_ vip.Slot, a netip.AddrPort) netip.Addr { return a.Addr() },
		func(w *wire.Attrs, s vip.Slot, a netip.AddrPort) {
			elemKey(w, func(b []byte) []byte { return appendHost(appendHost(b, s.Group), s.Index) })
			elemData(w, func(b []byte) []byte { return appendEndpoint(b, a) })
		})
}

// rest writes what changes seldom.
func rest(b *wire.Batch, op int, p vip.Program) {
	fronts(b, op, "timeouts", p.Timeouts, func(v uint32) uint32 { return v })
	fronts(b, op, "fenced", p.Fenced, nil)
	lists(b, op, "sources", p.Sources, func(s vip.Source, _ struct{}) netip.Addr { return s.Addr },
		func(w *wire.Attrs, s vip.Source, _ struct{}) {
			elemKey(w, func(b []byte) []byte { return appendAddr(appendFront(b, s.Front), s.Clients.Addr()) })
			value(w, setElemKeyEnd, func(b []byte) []byte { return appendAddr(appendFront(b, s.Front), last(s.Clients)) })
		})
	self := func(a netip.Addr, _ struct{}) netip.Addr { return a }
	lists(b, op, "addresses", p.Addresses, self, func(w *wire.Attrs, a netip.Addr, _ struct{}) {
		elemKey(w, func(b []byte) []byte { return appendAddr(b, a) })
	})
	lists(b, op, "hairpins", p.Hairpins, self, func(w *wire.Attrs, a netip.Addr, _ struct{}) {
		elemKey(w, func(b []byte) []byte { return appendAddr(appendAddr(b, a), a) })
	})
	ranges(b, op, p.Ranges)
}

// ranges writes intervals as the kernel keeps them, half-open and each as two
// elements, side by side: it would take two starts in a row for an overlap.
func ranges(b *wire.Batch, op int, set map[netip.Prefix]struct{}) {
	of := map[string]*list{"4": {b: b, op: op, name: "ranges4"}, "6": {b: b, op: op, name: "ranges6"}}
	for _, r := range slices.SortedFunc(maps.Keys(set), func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) }) {
		l := of[suffix(r.Addr())]
		l.element(func(w *wire.Attrs) { elemKey(w, func(b []byte) []byte { return appendAddr(b, r.Addr()) }) })
		if after := last(r).Next(); after.IsValid() {
			l.element(func(w *wire.Attrs) {
				elemKey(w, func(b []byte) []byte { return appendAddr(b, after) })
				w.U32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
			})
		}
	}
	of["4"].end()
	of["6"].end()
}

// setElemKeyEnd is NFTA_SET_ELEM_KEY_END (5.6).
const setElemKeyEnd = 10

func valueNumber(v vip.Value) uint32 { return uint32(v) }

// verdict enters a chain into a map of verdicts.
func verdict(b *wire.Batch, name string, key uint32, chain string) {
	l := list{b: b, op: unix.NFT_MSG_NEWSETELEM, name: name}
	l.element(func(w *wire.Attrs) {
		elemKey(w, func(b []byte) []byte { return appendHost(b, key) })
		at := w.Nest(unix.NFTA_SET_ELEM_DATA)
		w.Goes(unix.NFT_GOTO, chain)
		w.Close(at)
	})
	l.end()
}
