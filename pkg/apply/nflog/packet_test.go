package nflog

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"poplin.dev/poplin/pkg/cluster/service"
)

// header4 and header6 are those of packets from one address to another.
func header4(proto byte, fragment uint16, options int) []byte {
	b := make([]byte, 20+options)
	b[0], b[9] = 0x40|byte(len(b)/4), proto
	binary.BigEndian.PutUint16(b[6:], fragment)
	copy(b[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	return b
}

func header6(next byte) []byte {
	b := make([]byte, 40)
	b[0], b[6] = 0x60, next
	copy(b[8:], netip.MustParseAddr("fd00::1").AsSlice())
	copy(b[24:], netip.MustParseAddr("fd00::2").AsSlice())
	return b
}

func join(parts ...[]byte) (b []byte) {
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func TestParse(t *testing.T) {
	ports := []byte{0x30, 0x39, 0, 80} // 12345 to 80
	for _, c := range []struct {
		name     string
		b        []byte
		src, dst string // "" is no packet
		proto    service.Protocol
	}{
		{"TCP", join(header4(6, 0, 0), ports), "10.0.0.1:12345", "10.0.0.2:80", service.TCP},
		{"options", join(header4(17, 0, 8), ports), "10.0.0.1:12345", "10.0.0.2:80", service.UDP},
		{"a first fragment", join(header4(17, 0x2000, 0), ports), "10.0.0.1:12345", "10.0.0.2:80", service.UDP},
		{"a later fragment", join(header4(17, 0x2001, 0), ports), "10.0.0.1:0", "10.0.0.2:0", service.UDP},
		{"ICMP", join(header4(1, 0, 0), ports), "10.0.0.1:0", "10.0.0.2:0", 1},
		{"cut short", join(header4(6, 0, 0), ports[:3]), "10.0.0.1:0", "10.0.0.2:0", service.TCP},
		{"SCTP over IPv6", join(header6(132), ports), "[fd00::1]:12345", "[fd00::2]:80", service.SCTP},
		{"headers between", join(header6(0), []byte{60, 0, 7: 0}, []byte{6, 1, 15: 0}, ports, make([]byte, 4)), "[fd00::1]:12345", "[fd00::2]:80", service.TCP},
		{"a first fragment of IPv6", join(header6(44), []byte{17, 0, 0, 1, 7: 0}, ports, make([]byte, 4)), "[fd00::1]:12345", "[fd00::2]:80", service.UDP},
		{"a later fragment of IPv6", join(header6(44), []byte{17, 0, 0, 8, 7: 0}, ports, make([]byte, 4)), "[fd00::1]:0", "[fd00::2]:0", service.UDP},
		{"nothing", nil, "", "", 0},
		{"half a header", header4(6, 0, 0)[:19], "", "", 0},
		{"half a header of IPv6", header6(6)[:39], "", "", 0},
		{"a length that cannot be", join([]byte{0x41}, make([]byte, 30)), "", "", 0},
		{"neither", join([]byte{0x50}, make([]byte, 60)), "", "", 0},
	} {
		p, ok := Parse(c.b)
		if ok != (c.src != "") {
			t.Errorf("%s: understood: %v", c.name, ok)
		} else if ok && (p.Src.String() != c.src || p.Dst.String() != c.dst || p.Proto != c.proto) {
			t.Errorf("%s: got %+v", c.name, p)
		}
	}
}

// Whatever a packet holds, it is read or refused.
func FuzzParse(f *testing.F) {
	f.Add(header4(6, 0, 4))
	f.Add(join(header6(0), []byte{60, 0, 7: 0}, []byte{6, 255}))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, ok := Parse(b)
		if ok && (!p.Src.IsValid() || p.Src.Addr().BitLen() != p.Dst.Addr().BitLen()) {
			t.Errorf("%+v", p)
		}
	})
}
