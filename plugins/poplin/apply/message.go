package apply

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/wire"
)

var native = binary.NativeEndian

// linkHeader is struct ifinfomsg.
func linkHeader(index int32, flags, change uint32) wire.Attrs {
	b := make(wire.Attrs, 4, 256) // family and type: unspecified
	b = native.AppendUint32(b, uint32(index))
	b = native.AppendUint32(b, flags)
	return native.AppendUint32(b, change)
}

// addrHeader is struct ifaddrmsg.
func addrHeader(a netip.Addr, index int32) wire.Attrs {
	b := wire.Attrs{family(a), byte(a.BitLen()), 0, unix.RT_SCOPE_UNIVERSE}
	return native.AppendUint32(b, uint32(index))
}

// routeHeader is struct rtmsg.
func routeHeader(dst netip.Prefix, protocol, scope byte, flags uint32) wire.Attrs {
	b := wire.Attrs{family(dst.Addr()), byte(dst.Bits()), 0, 0, unix.RT_TABLE_MAIN, protocol, scope, unix.RTN_UNICAST}
	return native.AppendUint32(b, flags)
}

// neighHeader is struct ndmsg.
func neighHeader(a netip.Addr, index int32, state uint16) wire.Attrs {
	b := wire.Attrs{family(a), 0, 0, 0}
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
