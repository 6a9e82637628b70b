package foreign

import (
	"encoding/binary"

	"github.com/google/nftables/expr"

	"poplin.dev/poplin/pkg/facts"
)

// meta reads what is known of the packet, and the mark that is written on it.
func (w *reading) meta(e *expr.Meta) {
	switch {
	case !e.SourceRegister:
		w.what[e.Register] = metas[e.Key]
		if delete(w.value, e.Register); e.Key == expr.MetaKeyMARK {
			w.value[e.Register] = facts.MarkWrite{Keep: ^uint32(0)}
		}
	case e.Key == expr.MetaKeyMARK:
		if v, known := w.value[e.Register]; known {
			w.Mark = &v
		} else {
			w.obscure("a mark from elsewhere")
		}
	}
}

// track reads what is known of the connection, and the zone that is chosen for it.
// An expression without a register to load into is one that writes; the library
// does not say from which, which is the one that was filled just before.
func (w *reading) track(e *expr.Ct) {
	switch {
	case e.Register != 0:
		w.what[e.Register] = map[expr.CtKey]string{expr.CtKeySTATE: "ct state"}[e.Key]
		delete(w.value, e.Register)
	case e.Key == expr.CtKeyZONE:
		if v, known := w.value[w.filled]; known && v.Keep == 0 {
			zone := uint16(v.Flip)
			w.Zone = &zone
		} else {
			w.obscure("a zone from elsewhere")
		}
	}
}

// bitwise changes a number, or the mark.
func (w *reading) bitwise(e *expr.Bitwise) {
	v, known := w.value[e.SourceRegister]
	delete(w.value, e.DestRegister)
	if known && len(e.Mask) == 4 && len(e.Xor) == 4 {
		mask := native(e.Mask)
		w.value[e.DestRegister] = facts.MarkWrite{Keep: v.Keep & mask, Flip: v.Flip&mask ^ native(e.Xor)}
	}
}

// native is a number of 16 or 32 bits in the machine's order.
func native(b []byte) uint32 {
	if len(b) == 2 {
		return uint32(binary.NativeEndian.Uint16(b))
	}
	return binary.NativeEndian.Uint32(b)
}
