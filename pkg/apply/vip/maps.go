package vip

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/vip/wire"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/vip"
)

// kind is a data type of nft's: its number, its size, and whether its bytes
// are in the host's order.
type kind struct {
	magic, size uint32
	host        bool
}

var (
	ipv4Addr     = kind{7, 4, false}
	ipv6Addr     = kind{8, 16, false}
	inetProto    = kind{12, 1, false}
	inetService  = kind{13, 2, false}
	mark         = kind{19, 4, true}
	classID      = kind{23, 4, true}
	verdictMagic = uint32(0xffffff00)
)

// decl is a map, or without data a set.
type decl struct {
	name      string
	key, data []kind
	verdicts  bool
	interval  bool
	dynamic   bool
	size      uint32
}

// affinitySize is how many clients are remembered per family. Beyond it new
// ones get any endpoint.
const affinitySize = 1 << 18

// decls are all maps and sets. Their number is constant: the kernel's cost of
// a change grows with the square of it, and hardly with the elements.
func decls() []decl {
	list := []decl{
		{name: "protocols", key: []kind{inetProto}},
		{name: "picks", key: []kind{classID}, verdicts: true},
		{name: "clocks", key: []kind{mark}, verdicts: true},
	}
	for _, addr := range []kind{ipv4Addr, ipv6Addr} {
		suffix := map[kind]string{ipv4Addr: "4", ipv6Addr: "6"}[addr]
		front := []kind{addr, inetProto, inetService}
		endpoint := []kind{addr, inetService}
		list = append(list,
			decl{name: "frontends" + suffix, key: front, data: []kind{classID}},
			decl{name: "outside" + suffix, key: front, data: []kind{classID}},
			decl{name: "timeouts" + suffix, key: front, data: []kind{mark}},
			decl{name: "endpoints" + suffix, key: []kind{classID, mark}, data: endpoint},
			decl{name: "affinity" + suffix, key: []kind{addr, classID}, data: endpoint, dynamic: true, size: affinitySize},
			decl{name: "fenced" + suffix, key: front},
			decl{name: "sources" + suffix, key: []kind{addr, inetProto, inetService, addr}, interval: true},
			decl{name: "addresses" + suffix, key: []kind{addr}},
			decl{name: "ranges" + suffix, key: []kind{addr}, interval: true},
			decl{name: "hairpins" + suffix, key: []kind{addr, addr}},
		)
	}
	return list
}

// shape sums up the fields: type number, size in the kernel's registers.
func shape(fields []kind) (magic, size uint32) {
	for _, f := range fields {
		magic = magic<<6 | f.magic
		size += (f.size + 3) &^ 3
	}
	if len(fields) == 1 {
		size = fields[0].size
	}
	return magic, size
}

func (d decl) flags() (flags uint32) {
	if d.verdicts || d.data != nil {
		flags |= unix.NFT_SET_MAP
	}
	if d.interval {
		flags |= unix.NFT_SET_INTERVAL
	}
	if d.dynamic {
		flags |= unix.NFT_SET_EVAL | unix.NFT_SET_TIMEOUT
	}
	if len(d.key) > 1 {
		flags |= setConcat
	}
	return flags
}

// setConcat is NFT_SET_CONCAT (5.6), which golang.org/x/sys lacks.
const setConcat = 0x80

func addMap(b *wire.Batch, d decl, id uint32) {
	var w wire.Attrs
	w.Text(unix.NFTA_SET_TABLE, b.Table())
	w.Text(unix.NFTA_SET_NAME, d.name)
	w.U32(unix.NFTA_SET_FLAGS, d.flags())
	magic, size := shape(d.key)
	w.U32(unix.NFTA_SET_KEY_TYPE, magic)
	w.U32(unix.NFTA_SET_KEY_LEN, size)
	switch {
	case d.verdicts:
		w.U32(unix.NFTA_SET_DATA_TYPE, verdictMagic)
		w.U32(unix.NFTA_SET_DATA_LEN, 16)
	case d.data != nil:
		magic, size := shape(d.data)
		w.U32(unix.NFTA_SET_DATA_TYPE, magic)
		w.U32(unix.NFTA_SET_DATA_LEN, size)
	}
	w.U32(unix.NFTA_SET_ID, id)
	desc := w.Nest(unix.NFTA_SET_DESC)
	if d.size > 0 {
		w.U32(unix.NFTA_SET_DESC_SIZE, d.size)
	}
	if len(d.key) > 1 {
		concat := w.Nest(setDescConcat)
		for _, f := range d.key {
			elem := w.Nest(unix.NFTA_LIST_ELEM)
			w.U32(setFieldLen, f.size)
			w.Close(elem)
		}
		w.Close(concat)
	}
	w.Close(desc)
	w.Bytes(unix.NFTA_SET_USERDATA, append(byteOrder(0, d.key), byteOrder(1, d.data)...))
	b.Add(unix.NFT_MSG_NEWSET, create, w)
}

// Attributes of the fields of a concatenation (5.6).
const (
	setDescConcat = 2
	setFieldLen   = 1
)

// byteOrder is a note for nft, which cannot know it from the type alone.
func byteOrder(kind byte, fields []kind) []byte {
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

func appendAddr(b []byte, a netip.Addr) []byte { return append(b, a.AsSlice()...) }

func appendPort(b []byte, port uint16) []byte { return append(b, byte(port>>8), byte(port), 0, 0) }

func appendFront(b []byte, f vip.Front) []byte {
	return appendPort(append(appendAddr(b, f.Addr), byte(f.Proto), 0, 0, 0), f.Port)
}

func appendHost(b []byte, v uint32) []byte { return binary.NativeEndian.AppendUint32(b, v) }

func appendEndpoint(b []byte, a netip.AddrPort) []byte {
	return appendPort(appendAddr(b, a.Addr()), a.Port())
}

func readFront(b []byte) (vip.Front, bool) {
	n := len(b) - 8
	a, ok := netip.AddrFromSlice(b[:max(n, 0)])
	if !ok {
		return vip.Front{}, false
	}
	return vip.Front{Addr: a, Proto: service.Protocol(b[n]), Port: binary.BigEndian.Uint16(b[n+4:])}, true
}

func readEndpoint(b []byte) (netip.AddrPort, bool) {
	n := len(b) - 4
	a, ok := netip.AddrFromSlice(b[:max(n, 0)])
	if !ok {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[n:])), true
}

// last is the highest address of a range.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		host := min(max((i+1)*8-p.Bits(), 0), 8)
		b[i] |= byte(1<<host - 1)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// suffix is the family part of a map's name.
func suffix(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}
