package nflog

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/cluster/service"
)

// Packet is what the headers say. Ports are 0 for protocols without, and in
// later fragments.
type Packet struct {
	Src, Dst netip.AddrPort
	Proto    service.Protocol
}

// Parse reads the beginning of an IP packet (RFC 791, RFC 8200); ok is false
// for what is none.
func Parse(b []byte) (p Packet, ok bool) {
	if len(b) == 0 {
		return p, false
	}
	switch b[0] >> 4 {
	case 4:
		size := int(b[0]&0xf) * 4
		if size < 20 || len(b) < size {
			return p, false
		}
		p.Proto = service.Protocol(b[9])
		src, dst := netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		first := binary.BigEndian.Uint16(b[6:])&0x1fff == 0
		p.addresses(src, dst, b[size:], first)
	case 6:
		if len(b) < 40 {
			return p, false
		}
		src, dst := netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
		next, rest, first := upper(b[6], b[40:])
		p.Proto = service.Protocol(next)
		p.addresses(src, dst, rest, first)
	default:
		return p, false
	}
	return p, true
}

// upper skips the headers that IPv6 has between its own and the protocol's.
func upper(next byte, b []byte) (proto byte, rest []byte, first bool) {
	first = true
	for len(b) >= 8 {
		size := 8
		switch next {
		case unix.IPPROTO_HOPOPTS, unix.IPPROTO_ROUTING, unix.IPPROTO_DSTOPTS:
			size = (int(b[1]) + 1) * 8
		case unix.IPPROTO_FRAGMENT:
			first = first && binary.BigEndian.Uint16(b[2:])&0xfff8 == 0
		default:
			return next, b, first
		}
		next, b = b[0], b[min(size, len(b)):]
	}
	return next, b, first
}

// addresses takes over the ports too, which are at one place in all protocols
// that have some.
func (p *Packet) addresses(src, dst netip.Addr, transport []byte, first bool) {
	var from, to uint16
	switch p.Proto {
	case service.TCP, service.UDP, service.SCTP:
		if first && len(transport) >= 4 {
			from, to = binary.BigEndian.Uint16(transport), binary.BigEndian.Uint16(transport[2:])
		}
	}
	p.Src, p.Dst = netip.AddrPortFrom(src, from), netip.AddrPortFrom(dst, to)
}
