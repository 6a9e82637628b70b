package table

import (
	"encoding/binary"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/wire"
)

// Kind is a data type of nft's: its number, its size, and whether its bytes
// are in the host's order.
type Kind struct {
	magic, size uint32
	host        bool
}

// The types of keys and data.
var (
	IPv4Addr    = Kind{7, 4, false}
	IPv6Addr    = Kind{8, 16, false}
	InetProto   = Kind{12, 1, false}
	InetService = Kind{13, 2, false}
	Mark        = Kind{19, 4, true}
	ClassID     = Kind{23, 4, true}
)

const verdictMagic = 0xffffff00

// Map is a map, or without data a set.
type Map struct {
	Name      string
	Key, Data []Kind
	Verdicts  bool
	Interval  bool
	// Dynamic elements are written by packets, and time out.
	Dynamic bool
	// Size is the most elements that a dynamic map can have.
	Size uint32
	// Fixed are elements that are always there.
	Fixed [][]byte
}

// shape sums up the fields: type number, size in the kernel's registers.
func shape(fields []Kind) (magic, size uint32) {
	for _, f := range fields {
		magic = magic<<6 | f.magic
		size += (f.size + 3) &^ 3
	}
	if len(fields) == 1 {
		size = fields[0].size
	}
	return magic, size
}

func (m Map) flags() (flags uint32) {
	if m.Verdicts || m.Data != nil {
		flags |= unix.NFT_SET_MAP
	}
	if m.Interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if m.Dynamic {
		flags |= unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT
	}
	if len(m.Key) > 1 {
		flags |= setConcat
	}
	return flags
}

// is reports whether the kernel's description of a map is that of m.
func (m Map) is(b []byte) bool {
	_, key := shape(m.Key)
	_, data := shape(m.Data)
	if m.Verdicts {
		data = wire.Number(wire.Find(b, unix.NFTA_SET_DATA_LEN))
	}
	const counted = unix.NFT_SET_MAP | unix.NFT_SET_INTERVAL | unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL
	return wire.Number(wire.Find(b, unix.NFTA_SET_KEY_LEN)) == key && wire.Number(wire.Find(b, unix.NFTA_SET_DATA_LEN)) == data &&
		wire.Number(wire.Find(b, unix.NFTA_SET_FLAGS))&counted == m.flags()&counted
}

// setConcat is NFT_SET_CONCAT (5.6), which golang.org/x/sys lacks.
const setConcat = 0x80

func (m Map) add(b *wire.Batch, id uint32) {
	var w wire.Attrs
	w.Text(unix.NFTA_SET_TABLE, b.Table())
	w.Text(unix.NFTA_SET_NAME, m.Name)
	w.U32(unix.NFTA_SET_FLAGS, m.flags())
	magic, size := shape(m.Key)
	w.U32(unix.NFTA_SET_KEY_TYPE, magic)
	w.U32(unix.NFTA_SET_KEY_LEN, size)
	switch {
	case m.Verdicts:
		w.U32(unix.NFTA_SET_DATA_TYPE, verdictMagic)
		w.U32(unix.NFTA_SET_DATA_LEN, 16)
	case m.Data != nil:
		magic, size := shape(m.Data)
		w.U32(unix.NFTA_SET_DATA_TYPE, magic)
		w.U32(unix.NFTA_SET_DATA_LEN, size)
	}
	w.U32(unix.NFTA_SET_ID, id)
	desc := w.Nest(unix.NFTA_SET_DESC)
	if m.Size > 0 {
		w.U32(unix.NFTA_SET_DESC_SIZE, m.Size)
	}
	if len(m.Key) > 1 {
		concat := w.Nest(setDescConcat)
		for _, f := range m.Key {
			elem := w.Nest(unix.NFTA_LIST_ELEM)
			w.U32(setFieldLen, f.size)
			w.Close(elem)
		}
		w.Close(concat)
	}
	w.Close(desc)
	w.Bytes(unix.NFTA_SET_USERDATA, append(byteOrder(0, m.Key), byteOrder(1, m.Data)...))
	b.Add(unix.NFT_MSG_NEWSET, netlink.Create, w)
}

// Attributes of the fields of a concatenation (5.6).
const (
	setDescConcat = 2
	setFieldLen   = 1
)

// byteOrder is a note for nft, which cannot know it from the type alone.
func byteOrder(kind byte, fields []Kind) []byte {
	if len(fields) != 1 {
		return nil
	}
	order := uint32(2) // big-endian
	if fields[0].host {
		order = 1
	}
	return binary.NativeEndian.AppendUint32([]byte{kind, 4}, order)
}

// Keys and data as they lie in registers: every field padded to 4 bytes.

// AppendAddr writes an address.
func AppendAddr(b []byte, a netip.Addr) []byte { return append(b, a.AsSlice()...) }

// AppendPort writes a port.
func AppendPort(b []byte, port uint16) []byte { return append(b, byte(port>>8), byte(port), 0, 0) }

// AppendByte writes a protocol.
func AppendByte(b []byte, v byte) []byte { return append(b, v, 0, 0, 0) }

// AppendHost writes a number of a type in the host's order.
func AppendHost(b []byte, v uint32) []byte { return binary.NativeEndian.AppendUint32(b, v) }

// Host reads what AppendHost wrote, 0 where there is less.
func Host(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}

// Suffix ends the names of maps of which each family has its own.
func Suffix(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// Families are the address types of both, by suffix.
var Families = []struct {
	Suffix string
	Addr   Kind
}{{"4", IPv4Addr}, {"6", IPv6Addr}}
