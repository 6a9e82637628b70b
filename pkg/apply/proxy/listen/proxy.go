package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

// The two versions begin so (haproxy.org, proxy-protocol.txt).
const (
	v1Start = "PROXY "
	v2Start = "\r\n\r\n\x00\r\nQUIT\n"
)

const (
	v1Max = 107  // with line end
	v2Max = 4096 // what follows the 16 fixed bytes; TLVs of TLS are about 1 kB
)

var errProxy = errors.New("it is neither version 1 nor 2 of the PROXY protocol")

// readProxy reads a PROXY header. The address is invalid where the header
// says that the connection is the load balancer's own, such as its health
// check. rest is what was read past the header.
func readProxy(r io.Reader) (from netip.AddrPort, rest []byte, err error) {
	buf := make([]byte, 0, 256)
	// The shortest header of either version is longer than its start.
	for len(buf) < len(v2Start) {
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			return from, nil, err
		}
		if !starts(buf) {
			return from, nil, errProxy
		}
	}
	if bytes.HasPrefix(buf, []byte(v1Start)) {
		return readV1(r, buf)
	}
	return readV2(r, buf)
}

// starts reports whether b may be the beginning of a header.
func starts(b []byte) bool {
	for _, s := range []string{v1Start, v2Start} {
		n := min(len(s), len(b))
		if string(b[:n]) == s[:n] {
			return true
		}
	}
	return false
}

func readV1(r io.Reader, buf []byte) (from netip.AddrPort, rest []byte, err error) {
	end := bytes.Index(buf, []byte("\r\n"))
	for end < 0 {
		if len(buf) >= v1Max {
			return from, nil, errors.New("version 1: no line end within 107 bytes")
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil {
			return from, nil, err
		}
		end = bytes.Index(buf, []byte("\r\n"))
	}
	f := strings.Split(string(buf[len(v1Start):end]), " ")
	rest = buf[end+2:]
	switch {
	case f[0] == "UNKNOWN":
		return from, rest, nil
	case len(f) != 5 || f[0] != "TCP4" && f[0] != "TCP6":
		return from, nil, errors.New("version 1: it is not PROXY TCP4|TCP6 source destination port port")
	}
	addr, err := netip.ParseAddr(f[1])
	if err != nil || addr.Is4() != (f[0] == "TCP4") || addr.Zone() != "" {
		return from, nil, errors.New("version 1: the source is no address of its family")
	}
	port, err := strconv.ParseUint(f[3], 10, 16)
	if err != nil {
		return from, nil, errors.New("version 1: the source port is no port")
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), rest, nil
}

func readV2(r io.Reader, buf []byte) (from netip.AddrPort, rest []byte, err error) {
	fill := func(n int) error {
		for len(buf) < n {
			if cap(buf) < n {
				buf = append(make([]byte, 0, n), buf...)
			}
			m, err := r.Read(buf[len(buf):cap(buf)])
			buf = buf[:len(buf)+m]
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := fill(16); err != nil {
		return from, nil, err
	}
	length := int(binary.BigEndian.Uint16(buf[14:]))
	switch {
	case buf[12]>>4 != 2:
		return from, nil, errors.New("version 2: its version field says otherwise")
	case buf[12]&15 > 1:
		return from, nil, errors.New("version 2: its command is neither LOCAL nor PROXY")
	case length > v2Max:
		return from, nil, errors.New("version 2: it is longer than 4096 bytes")
	}
	command, family := buf[12]&15, buf[13]
	if err := fill(16 + length); err != nil {
		return from, nil, err
	}
	body, rest := buf[16:16+length], buf[16+length:]
	if command == 0 {
		return from, rest, nil
	}
	switch {
	case family == 0x11 && length >= 12:
		from = netip.AddrPortFrom(netip.AddrFrom4([4]byte(body[:4])), binary.BigEndian.Uint16(body[8:]))
	case family == 0x21 && length >= 36:
		from = netip.AddrPortFrom(netip.AddrFrom16([16]byte(body[:16])).Unmap(), binary.BigEndian.Uint16(body[32:]))
	case family == 0x11 || family == 0x21:
		return from, nil, errors.New("version 2: it is too short for its family")
	}
	return from, rest, nil
}
