// Package forge writes packets that their senders should not send, or sends
// them under addresses that are not theirs. Inputs are addresses and a text;
// output is bytes, or a packet on its way. It refuses nothing: the guards do.
package forge

import (
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/cluster"
)

// VXLAN is what a VTEP puts into UDP: VXLAN, Ethernet, IPv4 and UDP headers,
// the last without a checksum.
func VXLAN(src, dst cluster.MAC, from, to netip.AddrPort, text string) string {
	udp := append([]byte{
		byte(from.Port() >> 8), byte(from.Port()), byte(to.Port() >> 8), byte(to.Port()), 0, byte(8 + len(text)), 0, 0,
	}, text...)
	ip := []byte{0x45, 0, 0, byte(20 + len(udp)), 0, 0, 0, 0, 64, 17, 0, 0}
	ip = append(append(ip, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	sum := 0
	for i := 0; i < len(ip); i += 2 {
		sum += int(ip[i])<<8 | int(ip[i+1])
	}
	sum = sum>>16 + sum&0xffff
	sum = ^(sum>>16 + sum)
	ip[10], ip[11] = byte(sum>>8), byte(sum)
	frame := append([]byte{0x08, 0, 0, 0, 0, 0, 1, 0}, dst[:]...)
	frame = append(append(frame, src[:]...), 0x08, 0x00)
	return string(append(append(frame, ip...), udp...))
}

// Send sends a UDP packet from whatever address, in the calling thread's
// network namespace. It needs CAP_NET_ADMIN there.
func Send(from netip.Addr, to netip.AddrPort, text string) error {
	level, option := unix.SOL_IP, unix.IP_TRANSPARENT
	if from.Is6() {
		level, option = unix.SOL_IPV6, unix.IPV6_TRANSPARENT
	}
	dialer := net.Dialer{
		LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)),
		Control: func(_, _ string, raw syscall.RawConn) (err error) {
			if failed := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); failed != nil {
				return failed
			}
			return err
		},
	}
	c, err := dialer.Dial("udp", to.String())
	if err != nil {
		return err
	}
	_, err = c.Write([]byte(text))
	return errors.Join(err, c.Close())
}
