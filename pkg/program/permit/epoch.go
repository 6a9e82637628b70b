package permit

import (
	"encoding/binary"

	"poplin.dev/poplin/pkg/program/nft"
)

// Epoch is the time for which a program stays as it is: milliseconds since the
// machine's start, or a little more. Connections that were permitted carry its
// label, and are looked at no more until it ends. 0 is a kernel whose
// connections carry no labels.
type Epoch uint64

// MaxEpoch is more than a machine gets to see.
const MaxEpoch Epoch = 1<<40 - 1

// Label is the number and, bit by bit, its opposite: labels add up, and what
// two epochs add up to is none.
func (e Epoch) Label() (l nft.Label) {
	binary.LittleEndian.PutUint64(l[:], uint64(e))
	binary.LittleEndian.PutUint64(l[8:], uint64(e^MaxEpoch))
	return l
}

// EpochOf is the epoch of a label, 0 of something else.
func EpochOf(l nft.Label) Epoch {
	if e := Epoch(binary.LittleEndian.Uint64(l[:])); e <= MaxEpoch && e.Label() == l {
		return e
	}
	return 0
}

// class is the epoch as a part of keys of what is known, which is forgotten long
// before the number comes again. decidedBit is none of its bits.
func (e Epoch) class() uint32 { return uint32(e) &^ decidedBit }
