package apply

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// ethernetMTU is for a host without a default route.
const ethernetMTU = 1500

// nowhere is addresses that nobody has (RFC 5737, RFC 3849), so that their
// route is the default route.
var nowhere = [...]netip.Addr{
	netip.AddrFrom4([4]byte{192, 0, 2, 1}),
	netip.MustParseAddr("2001:db8::1"),
}

// DefaultMTU is the MTU of the device that the host's default route uses.
func DefaultMTU() (int, error) {
	host, err := open()
	if err != nil {
		return 0, err
	}
	defer host.Close()
	for _, a := range nowhere {
		route, err := host.route(a)
		if err != nil {
			continue // no default route of this family
		}
		link, err := host.describe(route.oif)
		if err == nil && link.flags&unix.IFF_LOOPBACK == 0 && link.mtu > 0 {
			return link.mtu, nil
		}
	}
	return ethernetMTU, nil
}
