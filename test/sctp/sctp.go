// Package sctp makes and reads the first packet of an SCTP association by hand:
// a kernel may translate SCTP without having sockets for it. It refuses to go
// any further.
package sctp

import (
	"encoding/binary"
	"hash/crc32"
	"net"
	"net/netip"
)

// Listen receives and sends whole SCTP packets at an address, in the network
// namespace of the calling thread.
func Listen(at netip.Addr) (*net.IPConn, error) {
	network := "ip4:132"
	if at.Is6() {
		network = "ip6:132"
	}
	return net.ListenIP(network, &net.IPAddr{IP: at.AsSlice()})
}

// Init is a packet with an INIT chunk (RFC 9260, section 3.3.2). Its tag holds
// the source port, for From.
func Init(from, to uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)          // verification tag 0, checksum
	b = append(b, 1, 0, 0, 20)                     // INIT, 20 bytes
	b = append(b, 1, 2, byte(from>>8), byte(from)) // tag
	b = append(b, 0, 1, 0, 0, 0, 1, 0, 1)          // window, streams
	b = append(b, 0, 0, 0, 1)                      // first sequence number
	binary.LittleEndian.PutUint32(b[8:], sum(b))
	return b
}

// Port is where a packet is going, and whether its checksum is right.
func Port(packet []byte) (port uint16, valid bool) {
	if len(packet) < 12 {
		return 0, false
	}
	return binary.BigEndian.Uint16(packet[2:]), sum(packet) == binary.LittleEndian.Uint32(packet[8:])
}

// From is the source port that Init was given, whatever was translated since.
func From(packet []byte) uint16 {
	if len(packet) < 20 {
		return 0
	}
	return binary.BigEndian.Uint16(packet[18:])
}

// sum is the checksum, of a packet that has none in its place.
func sum(packet []byte) uint32 {
	b := append([]byte(nil), packet...)
	clear(b[8:12])
	return crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}
