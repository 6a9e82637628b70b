// Package wire speaks netlink for plugins: attributes, messages, a socket.
// Inputs are messages; outputs are the kernel's answers and its errors, with
// its own words for them. It knows no protocol, holds nothing between calls
// but a number, and refuses to wait for an answer for ever.
//
// A library for netlink would cost every pod the start of a larger program.
package wire

import (
	"encoding/binary"
	"iter"

	"golang.org/x/sys/unix"
)

var native = binary.NativeEndian

// Attrs writes attributes.
type Attrs []byte

// Bytes writes an attribute.
func (w *Attrs) Bytes(kind uint16, value []byte) {
	at := w.open(kind)
	*w = append(*w, value...)
	w.close(at)
}

// Text ends with a zero.
func (w *Attrs) Text(kind uint16, s string) { w.Bytes(kind, append([]byte(s), 0)) }

// Host is a number in the host's order, as rtnetlink has them.
func (w *Attrs) Host(kind uint16, v uint32) { w.Bytes(kind, native.AppendUint32(nil, v)) }

// Net is a big-endian number, as nf_tables has them.
func (w *Attrs) Net(kind uint16, v uint32) { w.Bytes(kind, binary.BigEndian.AppendUint32(nil, v)) }

// Nest writes an attribute of the attributes that inside writes.
func (w *Attrs) Nest(kind uint16, inside func()) {
	at := w.open(kind | unix.NLA_F_NESTED)
	inside()
	w.close(at)
}

func (w *Attrs) open(kind uint16) (at int) {
	at = len(*w)
	*w = native.AppendUint16(*w, 0)
	*w = native.AppendUint16(*w, kind)
	return at
}

func (w *Attrs) close(at int) {
	native.PutUint16((*w)[at:], uint16(len(*w)-at))
	for len(*w)%unix.NLA_ALIGNTO != 0 {
		*w = append(*w, 0)
	}
}

// All walks over attributes; a damaged one ends the walk.
func All(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.NLA_HDRLEN {
			n := int(native.Uint16(b))
			if n < unix.NLA_HDRLEN || n > len(b) {
				return
			}
			if !yield(native.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[unix.NLA_HDRLEN:n]) {
				return
			}
			b = b[min(align(n), len(b)):]
		}
	}
}

// Find is the attribute at the end of a path of nested ones; nil without one.
func Find(b []byte, path ...uint16) []byte {
	for kind, v := range All(b) {
		if kind != path[0] {
			continue
		}
		if len(path) == 1 {
			return v
		}
		return Find(v, path[1:]...)
	}
	return nil
}

func align(n int) int { return (n + unix.NLA_ALIGNTO - 1) &^ (unix.NLA_ALIGNTO - 1) }

// Message is a request: the header of its protocol and attributes.
type Message struct {
	// What it is for, as its error says it.
	What        string
	Kind, Flags uint16
	Body        Attrs
}

func (m Message) append(b []byte, seq uint32) []byte {
	b = native.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(m.Body)))
	b = native.AppendUint16(b, m.Kind)
	b = native.AppendUint16(b, m.Flags|unix.NLM_F_REQUEST)
	b = native.AppendUint32(b, seq)
	b = native.AppendUint32(b, 0)
	return append(b, m.Body...)
}
