// Package program says what the kernel should hold, as plain values: one
// VXLAN device with its addresses, neighbours and forwarding entries, routes,
// sysctls, and the content of an nftables table. Compilers produce these
// values, appliers make the kernel agree with them. String is stable text
// close to what iproute2 and nft print, for golden tests, logs and people. It
// refuses to touch the kernel or to know a cluster.
package program

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster"
)

// Protocol marks Poplin's routes (rtm_protocol), so that it recognises its
// own after a restart and leaves all others alone.
const Protocol = 157

// Net is what the kernel's network should hold of the overlay. Addresses,
// neighbours and forwarding entries are those of Link.
type Net struct {
	// Link is the overlay device; the zero value means none, and then there
	// are no Addrs, Neighs and FDB either.
	Link    VXLAN
	Sysctls []Sysctl
	// Addrs are single addresses: prefixes of full length.
	Addrs  []netip.Prefix
	Neighs []Neigh
	FDB    []FDB
	Routes []Route
}

// VXLAN is a point-to-multipoint device that learns nothing by itself.
type VXLAN struct {
	Name string
	VNI  uint32
	Port uint16
	// Local is the outer source address, held by the device Parent.
	Local       netip.Addr
	Parent      string
	ParentIndex int
	MTU         int
	MAC         cluster.MAC
	// SoftwareChecksum has the CPU fill in checksums of what the device
	// sends; usual is to leave them to the network card.
	SoftwareChecksum bool
}

// Neigh is a permanent neighbour: no ARP or neighbour discovery ever.
type Neigh struct {
	Addr netip.Addr
	MAC  cluster.MAC
}

// FDB is a permanent forwarding entry: frames for MAC go to the VTEP Dst.
type FDB struct {
	MAC cluster.MAC
	Dst netip.Addr
}

// Route is a route of table main.
type Route struct {
	Dst netip.Prefix
	// Via is reached through Dev whatever the device's addresses say
	// (onlink). A route without Dev answers "unreachable".
	Via netip.Addr
	Dev string
	// DevIndex is Dev's, unless that is the overlay device, whose index is
	// another one whenever it was made anew.
	DevIndex int
	// Metric orders routes to one Dst; 0 is preferred (1024 in IPv6).
	Metric int
	// MTU, if not zero, is what passes on the way, where that is less than
	// the device's.
	MTU int
}

// Sysctl is one file below /proc/sys/net.
type Sysctl struct {
	// Key is the path below net, such as ipv4/ip_forward: slashes, because
	// device names may hold dots.
	Key, Value string
	// If lists what other keys must hold for this one to be written.
	If []Setting
	// AtLeast settings are numbers, and a larger one is right too.
	AtLeast bool
	// Optional settings are those of a feature that a kernel may lack.
	Optional bool
	// Shared settings are not of a device of ours, which they would go with:
	// what they were before has to be remembered.
	Shared bool
}

// Setting is a key and the value it holds.
type Setting struct{ Key, Value string }

// Grow makes room for so many peers of so many families, so that the entries of
// a large cluster are not copied again and again while they are added.
func (n *Net) Grow(peers, families int) {
	n.FDB = slices.Grow(n.FDB, peers)
	n.Neighs = slices.Grow(n.Neighs, peers*families)
	n.Routes = slices.Grow(n.Routes, peers*families)
}

// Add appends o's entries; o has no Link of its own.
func (n *Net) Add(o Net) {
	n.Sysctls = append(n.Sysctls, o.Sysctls...)
	n.Addrs = append(n.Addrs, o.Addrs...)
	n.Neighs = append(n.Neighs, o.Neighs...)
	n.FDB = append(n.FDB, o.FDB...)
	n.Routes = append(n.Routes, o.Routes...)
}

// String lists everything a line each; the order within a kind is that of the text,
// except for sysctls, whose order matters.
func (n Net) String() string {
	var b strings.Builder
	if n.Link != (VXLAN{}) {
		fmt.Fprintln(&b, n.Link)
	}
	for _, s := range n.Sysctls {
		fmt.Fprintln(&b, s)
	}
	dev := n.Link.Name
	writeSorted(&b, n.Addrs, func(a netip.Prefix) string { return fmt.Sprintf("address %s dev %s", a, dev) })
	writeSorted(&b, n.Neighs, func(x Neigh) string {
		return fmt.Sprintf("neighbour %s lladdr %s dev %s nud permanent", x.Addr, x.MAC, dev)
	})
	writeSorted(&b, n.FDB, func(x FDB) string { return fmt.Sprintf("fdb %s dst %s dev %s self permanent", x.MAC, x.Dst, dev) })
	writeSorted(&b, n.Routes, Route.String)
	return b.String()
}

func (l VXLAN) String() string {
	text := fmt.Sprintf("link %s vxlan id %d dstport %d local %s dev %s nolearning mtu %d address %s",
		l.Name, l.VNI, l.Port, l.Local, l.Parent, l.MTU, l.MAC)
	if l.SoftwareChecksum {
		text += " tx-checksumming off" // as ethtool has it
	}
	return text
}

func (r Route) String() string {
	var b strings.Builder
	b.WriteString("route ")
	if r.Dev == "" {
		b.WriteString("unreachable ")
	}
	b.WriteString(r.Dst.String())
	if r.Via.IsValid() {
		fmt.Fprintf(&b, " via %s", r.Via)
	}
	if r.Dev != "" {
		fmt.Fprintf(&b, " dev %s", r.Dev)
	}
	if r.Via.IsValid() {
		b.WriteString(" onlink")
	}
	fmt.Fprintf(&b, " proto %d", Protocol)
	if r.Metric != 0 {
		fmt.Fprintf(&b, " metric %d", r.Metric)
	}
	if r.MTU != 0 {
		fmt.Fprintf(&b, " mtu %d", r.MTU)
	}
	return b.String()
}

func (s Sysctl) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "sysctl net/%s = %s", s.Key, s.Value)
	for _, c := range s.If {
		fmt.Fprintf(&b, " if net/%s = %s", c.Key, c.Value)
	}
	return b.String()
}

func writeSorted[T any](b *strings.Builder, items []T, text func(T) string) {
	lines := make([]string, len(items))
	for i, item := range items {
		lines[i] = text(item)
	}
	slices.Sort(lines)
	for _, l := range lines {
		b.WriteString(l)
		b.WriteByte('\n')
	}
}
