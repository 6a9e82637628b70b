package table

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/wire"
)

// Delete and Put are what to do with elements.
const (
	Delete = unix.NFT_MSG_DELSETELEM
	Put    = unix.NFT_MSG_NEWSETELEM
)

// A list of elements is one netlink attribute, whose length is 16 bits: what
// is longer the kernel would cut off without a word.
const fullList = 60_000

// List writes elements of one map, over as many messages as it takes.
type List struct {
	Batch *wire.Batch
	Op    int
	Name  string
	w     wire.Attrs
	at    int
}

// Add writes an element of which body is the content.
func (l *List) Add(body func(w *wire.Attrs)) {
	if len(l.w) == 0 {
		l.w = make(wire.Attrs, 0, 4096)
		l.w.Text(unix.NFTA_SET_ELEM_LIST_TABLE, l.Batch.Table())
		l.w.Text(unix.NFTA_SET_ELEM_LIST_SET, l.Name)
		l.at = l.w.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	}
	elem := l.w.Nest(unix.NFTA_LIST_ELEM)
	body(&l.w)
	l.w.Close(elem)
	if len(l.w) > fullList {
		l.End()
	}
}

// End writes what is left.
func (l *List) End() {
	if len(l.w) == 0 {
		return
	}
	l.w.Close(l.at)
	flags := netlink.HeaderFlags(0)
	if l.Op == Put {
		flags = netlink.Create
	}
	l.Batch.Add(l.Op, flags, l.w)
	l.w = nil
}

// Each writes the elements of a map, of which each family has its own.
func Each[K comparable, V any](b *wire.Batch, op int, name string, m map[K]V, addr func(K, V) netip.Addr, body func(w *wire.Attrs, k K, v V)) {
	if len(m) == 0 {
		return
	}
	of := map[string]*List{"4": {Batch: b, Op: op, Name: name + "4"}, "6": {Batch: b, Op: op, Name: name + "6"}}
	for k, v := range m {
		of[Suffix(addr(k, v))].Add(func(w *wire.Attrs) { body(w, k, v) })
	}
	of["4"].End()
	of["6"].End()
}

// value writes key or data.
func value(w *wire.Attrs, kind uint16, write func([]byte) []byte) {
	outer := w.Nest(kind)
	inner := w.Open(unix.NFTA_DATA_VALUE)
	*w = write(*w)
	w.Close(inner)
	w.Close(outer)
}

// Key writes an element's key, KeyEnd the last key of an interval of
// concatenated fields (5.6), Data the value.
func Key(w *wire.Attrs, write func([]byte) []byte) { value(w, unix.NFTA_SET_ELEM_KEY, write) }

// KeyEnd writes the last key of an interval.
func KeyEnd(w *wire.Attrs, write func([]byte) []byte) { value(w, setElemKeyEnd, write) }

// Data writes an element's value.
func Data(w *wire.Attrs, write func([]byte) []byte) { value(w, unix.NFTA_SET_ELEM_DATA, write) }

// setElemKeyEnd is NFTA_SET_ELEM_KEY_END (5.6).
const setElemKeyEnd = 10

// Verdict enters a chain into a map of verdicts.
func Verdict(b *wire.Batch, name string, key uint32, chain string) {
	l := List{Batch: b, Op: Put, Name: name}
	l.Add(func(w *wire.Attrs) {
		Key(w, func(b []byte) []byte { return AppendHost(b, key) })
		at := w.Nest(unix.NFTA_SET_ELEM_DATA)
		w.Goes(unix.NFT_GOTO, chain)
		w.Close(at)
	})
	l.End()
}

// Interval is addresses of one family from First to Last.
type Interval struct{ First, Last netip.Addr }

// Intervals writes ranges of addresses as the kernel keeps them, half-open and
// each as two elements, side by side: it would take two starts in a row for an
// overlap. data, if any, is a range's value.
func Intervals[V any](b *wire.Batch, op int, name string, m map[Interval]V, data func(w *wire.Attrs, v V)) {
	of := map[string]*List{"4": {Batch: b, Op: op, Name: name + "4"}, "6": {Batch: b, Op: op, Name: name + "6"}}
	for _, r := range slices.SortedFunc(maps.Keys(m), func(a, b Interval) int { return a.First.Compare(b.First) }) {
		l := of[Suffix(r.First)]
		l.Add(func(w *wire.Attrs) {
			Key(w, func(b []byte) []byte { return AppendAddr(b, r.First) })
			if data != nil {
				data(w, m[r])
			}
		})
		if after := r.Last.Next(); after.IsValid() {
			l.Add(func(w *wire.Attrs) {
				Key(w, func(b []byte) []byte { return AppendAddr(b, after) })
				w.U32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
			})
		}
	}
	of["4"].End()
	of["6"].End()
}

// ReadIntervals joins the starts and ends of a listing. The range that ends
// with the address space has no end.
func ReadIntervals(list []Element, each func(Interval, Element)) {
	list = slices.SortedFunc(slices.Values(list), func(a, b Element) int {
		if c := slices.Compare(a.Key, b.Key); c != 0 || a.Last == b.Last {
			return c
		} else if a.Last {
			return -1 // one ends where the next begins
		}
		return 1
	})
	for i, e := range list {
		first, ok := netip.AddrFromSlice(e.Key)
		if !ok || e.Last {
			continue
		}
		end := lastOf(first)
		if i+1 < len(list) {
			if next, ok := netip.AddrFromSlice(list[i+1].Key); ok {
				end = next.Prev()
			}
		}
		each(Interval{first, end}, e)
	}
}

// lastOf is the last address of a's family.
func lastOf(a netip.Addr) netip.Addr {
	all := slices.Repeat([]byte{0xff}, a.BitLen()/8)
	last, _ := netip.AddrFromSlice(all)
	return last
}
