package facts

import (
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/service"
)

// Network is a network namespace: a node's, or a pod's.
type Network struct {
	Links  []Link  `json:"links,omitempty"`
	Routes []Route `json:"routes,omitempty"`
	// Decisions is where the kernel would send a packet of each flow.
	Decisions []Decision `json:"decisions,omitempty"`
	Neighs    []Neigh    `json:"neighbours,omitempty"`
	FDB       []Forward  `json:"fdb,omitempty"`
	// Sysctls are by their path below /proc/sys/net.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	Sockets []Socket          `json:"sockets,omitempty"`
}

// Link is a device.
type Link struct {
	Index int    `json:"index"`
	Name  string `json:"name"`
	Kind  string `json:"kind,omitempty"`
	MAC   string `json:"mac"`
	MTU   int    `json:"mtu"`
	// Up is what an administrator wants, Running whether there is a carrier.
	Up      bool   `json:"up"`
	Running bool   `json:"running"`
	Group   uint32 `json:"group,omitempty"`
	// Addresses have the lengths of their networks' prefixes.
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	VXLAN     *VXLAN         `json:"vxlan,omitempty"`
	// Queue is the kind of the discipline that packets leave by.
	Queue string `json:"queue,omitempty"`
	// Settings are sysctls of the device, such as ipv4/rp_filter.
	Settings map[string]int `json:"settings,omitempty"`
}

// VXLAN is what makes a link one.
type VXLAN struct {
	VNI   uint32     `json:"vni"`
	Port  uint16     `json:"port"`
	Local netip.Addr `json:"local"`
}

// Route is a route of table main.
type Route struct {
	Dst netip.Prefix `json:"dst"`
	// Kind is unicast, unreachable, blackhole or prohibit.
	Kind     string     `json:"kind"`
	Via      netip.Addr `json:"via,omitzero"`
	Dev      string     `json:"dev,omitempty"`
	Src      netip.Addr `json:"src,omitzero"`
	Protocol int        `json:"protocol"`
	Metric   int        `json:"metric,omitempty"`
	MTU      int        `json:"mtu,omitempty"`
}

// Decision is what the kernel would do with a packet from Src, which came in
// by the device In, or begins here where that is empty.
type Decision struct {
	Src netip.Addr `json:"src,omitzero"`
	In  string     `json:"in,omitempty"`
	Dst netip.Addr `json:"dst"`
	// Mark is what rules of others write on the packet before it is routed.
	Mark uint32 `json:"mark,omitempty"`

	// Local says that the packet has arrived.
	Local bool       `json:"local,omitempty"`
	Via   netip.Addr `json:"via,omitzero"`
	Dev   string     `json:"dev,omitempty"`
	MTU   int        `json:"mtu,omitempty"`
	// Error is why the packet goes nowhere.
	Error string `json:"error,omitempty"`
}

// Neigh is an entry of the neighbour table.
type Neigh struct {
	Addr  netip.Addr `json:"addr"`
	Dev   string     `json:"dev"`
	MAC   string     `json:"mac"`
	State string     `json:"state"`
}

// Forward is an entry of a VXLAN device's forwarding table.
type Forward struct {
	MAC string     `json:"mac"`
	Dst netip.Addr `json:"dst"`
}

// Socket is where somebody receives.
type Socket struct {
	Proto service.Protocol `json:"proto"`
	At    netip.AddrPort   `json:"at"`
	// Waiting are TCP connections that nobody accepts.
	Waiting uint32 `json:"waiting,omitempty"`
}

// Pod is an attachment, and the inside of it where the reader may look there.
type Pod struct {
	// Name is namespace and name.
	Name      string       `json:"pod"`
	Container string       `json:"container"`
	Interface string       `json:"interface"`
	HostLink  string       `json:"hostLink"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Chains are rules in the pod's own namespace.
	Chains []Chain `json:"chains,omitempty"`
	// Inside is nil where nobody looked, for the reason Hidden.
	Inside *Network `json:"inside,omitempty"`
	Hidden string   `json:"hidden,omitempty"`
}

// Link finds a device by name.
func (n *Network) Link(name string) (Link, bool) {
	i := slices.IndexFunc(n.Links, func(l Link) bool { return l.Name == name })
	if i < 0 {
		return Link{}, false
	}
	return n.Links[i], true
}

// Holder finds the device that has an address.
func (n *Network) Holder(a netip.Addr) (Link, bool) {
	for _, l := range n.Links {
		for _, p := range l.Addresses {
			if p.Addr() == a {
				return l, true
			}
		}
	}
	return Link{}, false
}

// Decision finds where a packet goes.
func (n *Network) Decision(src, dst netip.Addr) (Decision, bool) {
	i := slices.IndexFunc(n.Decisions, func(d Decision) bool { return d.Src == src && d.Dst == dst })
	if i < 0 {
		return Decision{}, false
	}
	return n.Decisions[i], true
}
