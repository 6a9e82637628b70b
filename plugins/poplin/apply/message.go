package apply

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// message is one rtnetlink request: the header of the family (rtnetlink(7))
// followed by attributes. Writing requests by hand takes a page; a library
// for all of rtnetlink costs each pod the start-up of a program three times
// the size, and sends one message at a time.
type message struct {
	kind, flags uint16
	body        []byte
}

var native = binary.NativeEndian

func (m *message) attr(kind uint16, value []byte) {
	m.body = native.AppendUint16(m.body, uint16(unix.SizeofRtAttr+len(value)))
	m.body = native.AppendUint16(m.body, kind)
	m.body = append(m.body, value...)
	m.pad()
}

func (m *message) attr32(kind uint16, value uint32) {
	m.attr(kind, native.AppendUint32(nil, value))
}

func (m *message) attrString(kind uint16, value string) {
	m.attr(kind, append([]byte(value), 0))
}

func (m *message) attrAddr(kind uint16, value netip.Addr) {
	m.attr(kind, value.AsSlice())
}

// nest writes an attribute that holds what inside writes.
func (m *message) nest(kind uint16, inside func()) {
	at := len(m.body)
	m.attr(kind, nil)
	inside()
	native.PutUint16(m.body[at:], uint16(len(m.body)-at))
	m.pad()
}

func (m *message) pad() {
	for len(m.body)%unix.NLMSG_ALIGNTO != 0 {
		m.body = append(m.body, 0)
	}
}

// append writes m with its header to a buffer of messages.
func (m *message) append(b []byte, seq uint32) []byte {
	b = native.AppendUint32(b, uint32(unix.SizeofNlMsghdr+len(m.body)))
	b = native.AppendUint16(b, m.kind)
	b = native.AppendUint16(b, m.flags|unix.NLM_F_REQUEST)
	b = native.AppendUint32(b, seq)
	b = native.AppendUint32(b, 0)
	return append(b, m.body...)
}

// attrs reads attributes; a kind that occurs twice counts once. What is cut
// short ends the list.
func attrs(b []byte) map[uint16][]byte {
	found := map[uint16][]byte{}
	for len(b) >= unix.SizeofRtAttr {
		size := int(native.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			break
		}
		found[native.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = b[unix.SizeofRtAttr:size]
		b = b[min(align(size), len(b)):]
	}
	return found
}

func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// linkHeader is struct ifinfomsg.
func linkHeader(index int32, flags, change uint32) []byte {
	b := make([]byte, 4, 256) // family and type: unspecified
	b = native.AppendUint32(b, uint32(index))
	b = native.AppendUint32(b, flags)
	return native.AppendUint32(b, change)
}

// addrHeader is struct ifaddrmsg.
func addrHeader(a netip.Addr, index int32) []byte {
	b := []byte{family(a), byte(a.BitLen()), 0, unix.RT_SCOPE_UNIVERSE}
	return native.AppendUint32(b, uint32(index))
}

// routeHeader is struct rtmsg.
func routeHeader(dst netip.Prefix, protocol, scope byte, flags uint32) []byte {
	b := []byte{family(dst.Addr()), byte(dst.Bits()), 0, 0, unix.RT_TABLE_MAIN, protocol, scope, unix.RTN_UNICAST}
	return native.AppendUint32(b, flags)
}

// neighHeader is struct ndmsg.
func neighHeader(a netip.Addr, index int32, state uint16) []byte {
	b := []byte{family(a), 0, 0, 0}
	b = native.AppendUint32(b, uint32(index))
	b = native.AppendUint16(b, state)
	return append(b, 0, 0)
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
