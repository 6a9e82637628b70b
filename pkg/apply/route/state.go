package route

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program"
)

// state is what the kernel holds, or should hold, of ours: the items by what
// identifies them to the kernel.
type state struct {
	link   *netlink.Vxlan
	addrs  map[netip.Prefix]struct{}
	neighs map[netip.Addr]cluster.MAC
	fdb    map[cluster.MAC]netip.Addr
	routes map[routeKey]routeVia
}

type routeKey struct {
	dst    netip.Prefix
	metric int
}

func (k routeKey) String() string {
	if k.metric == 0 {
		return "route " + k.dst.String()
	}
	return fmt.Sprintf("route %s metric %d", k.dst, k.metric)
}

// routeVia is the rest of a route; unreachable ones have nothing.
type routeVia struct {
	via netip.Addr
	dev int // index of a device, or byOverlay
	mtu int
}

// byOverlay stands for the overlay device, whose index is another one
// whenever it was made anew.
const byOverlay = -1

// index is the device's, 0 without one.
func (st *state) index() int {
	if st.link == nil {
		return 0
	}
	return st.link.Index
}

func newState(link *netlink.Vxlan) *state {
	return stateFor(link, program.Net{})
}

// stateFor has room for a program.
func stateFor(link *netlink.Vxlan, n program.Net) *state {
	return &state{
		link:   link,
		addrs:  make(map[netip.Prefix]struct{}, len(n.Addrs)),
		neighs: make(map[netip.Addr]cluster.MAC, len(n.Neighs)),
		fdb:    make(map[cluster.MAC]netip.Addr, len(n.FDB)),
		routes: make(map[routeKey]routeVia, len(n.Routes)),
	}
}

// targetOf refuses a program that contradicts itself: whichever item won,
// the other would be missing without a word.
func targetOf(n program.Net) (*state, error) {
	t := stateFor(nil, n)
	for _, p := range n.Addrs {
		t.addrs[p] = struct{}{}
	}
	for _, x := range n.Neighs {
		if old, ok := t.neighs[x.Addr]; ok && old != x.MAC {
			return nil, fmt.Errorf("read program: neighbour %s has two MAC addresses, %s and %s", x.Addr, old, x.MAC)
		}
		t.neighs[x.Addr] = x.MAC
	}
	for _, x := range n.FDB {
		if old, ok := t.fdb[x.MAC]; ok && old != x.Dst {
			return nil, fmt.Errorf("read program: forwarding entry %s has two destinations, %s and %s", x.MAC, old, x.Dst)
		}
		t.fdb[x.MAC] = x.Dst
	}
	for _, r := range n.Routes {
		k, v := routeKey{r.Dst, metric(r.Dst, r.Metric)}, routeVia{via: r.Via, mtu: r.MTU}
		switch r.Dev {
		case "":
		case n.Link.Name:
			v.dev = byOverlay
		default:
			if v.dev = r.DevIndex; v.dev == 0 {
				return nil, fmt.Errorf("read program: %s: its device has no index", r)
			}
		}
		if old, ok := t.routes[k]; ok && old != v {
			return nil, fmt.Errorf("read program: %s has two next hops", k)
		}
		t.routes[k] = v
	}
	return t, nil
}

// metric is what the kernel makes of one: IPv6 has no metric 0.
func metric(dst netip.Prefix, m int) int {
	if m == 0 && dst.Addr().Is6() {
		return 1024
	}
	return m
}

// readFrom lists what the kernel holds of ours; link is nil where there is no device.
func (a *Applier) readFrom(link *netlink.Vxlan) (*state, error) {
	st := newState(link)
	steps := []func(*state) error{a.readRoutes}
	if link != nil {
		steps = append(steps, a.readAddrs, a.readNeighs, a.readFDB)
	}
	for _, read := range steps {
		if err := read(st); err != nil {
			return nil, err
		}
	}
	return st, nil
}

func (a *Applier) readAddrs(st *state) error {
	list, err := whole(func() ([]netlink.Addr, error) { return a.handle.AddrList(st.link, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", a.conf.Link, err)
	}
	for _, addr := range list {
		if ip, ok := ipOf(addr.IP); ok {
			bits, _ := addr.Mask.Size()
			st.addrs[netip.PrefixFrom(ip, bits)] = struct{}{}
		}
	}
	return nil
}

// readNeighs takes permanent entries only: the kernel itself keeps others,
// for multicast groups, as NOARP.
func (a *Applier) readNeighs(st *state) error {
	list, err := whole(func() ([]netlink.Neigh, error) {
		return a.handle.NeighList(st.link.Index, netlink.FAMILY_ALL)
	})
	if err != nil {
		return fmt.Errorf("list neighbours of %s: %w", a.conf.Link, err)
	}
	for _, n := range list {
		ip, ok := ipOf(n.IP)
		if ok && n.Family != unix.AF_BRIDGE && n.State&netlink.NUD_PERMANENT != 0 && len(n.HardwareAddr) == 6 {
			st.neighs[ip] = cluster.MAC(n.HardwareAddr)
		}
	}
	return nil
}

func (a *Applier) readFDB(st *state) error {
	list, err := whole(func() ([]netlink.Neigh, error) {
		return a.handle.NeighList(st.link.Index, unix.AF_BRIDGE)
	})
	if err != nil {
		return fmt.Errorf("list forwarding entries of %s: %w", a.conf.Link, err)
	}
	for _, n := range list {
		if ip, ok := ipOf(n.IP); ok && len(n.HardwareAddr) == 6 {
			st.fdb[cluster.MAC(n.HardwareAddr)] = ip
		}
	}
	return nil
}

// readRoutes takes ours: our protocol, and our device, a next hop elsewhere, or
// none of both. Pods' routes have the same protocol, devices of their own and
// no next hop; they are the CNI plugin's.
func (a *Applier) readRoutes(st *state) error {
	list, err := a.listRoutes()
	if err != nil {
		return err
	}
	for _, r := range list {
		v, ours := st.via(r)
		if r.Dst == nil || !ours {
			continue
		}
		ip, ok := ipOf(r.Dst.IP)
		if !ok {
			continue
		}
		bits, _ := r.Dst.Mask.Size()
		st.routes[routeKey{netip.PrefixFrom(ip, bits), r.Priority}] = v
	}
	return nil
}

// listRoutes are those with our protocol.
func (a *Applier) listRoutes() ([]netlink.Route, error) {
	filter := &netlink.Route{Protocol: program.Protocol, Table: unix.RT_TABLE_MAIN}
	list, err := whole(func() ([]netlink.Route, error) {
		return a.handle.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return list, nil
}

// via reads where a route with our protocol leads; one that is not ours has
// its own device and no next hop.
func (st *state) via(r netlink.Route) (v routeVia, ours bool) {
	v.via, _ = ipOf(r.Gw)
	v.mtu = r.MTU
	switch {
	case r.Type == unix.RTN_UNREACHABLE:
		return routeVia{}, true
	case r.Type != unix.RTN_UNICAST:
		return v, false
	case st.link != nil && r.LinkIndex == st.link.Index:
		v.dev = byOverlay
		return v, true
	}
	v.dev = r.LinkIndex
	return v, v.via.IsValid()
}

func (a *Applier) netlinkNeigh(ip netip.Addr, mac cluster.MAC) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex: a.state.link.Index, State: netlink.NUD_PERMANENT,
		IP: ip.AsSlice(), HardwareAddr: mac[:],
	}
}

func (a *Applier) netlinkFDB(mac cluster.MAC, dst netip.Addr) *netlink.Neigh {
	n := a.netlinkNeigh(dst, mac)
	n.Family, n.Flags = unix.AF_BRIDGE, netlink.NTF_SELF
	return n
}

// whole repeats a list that changed while it was read (NLM_F_DUMP_INTR): half
// a list would make us add what is there and keep what should go.
func whole[T any](list func() ([]T, error)) ([]T, error) {
	const attempts = 20
	for n := 1; ; n++ {
		items, err := list()
		if err == nil {
			return items, nil
		}
		if again := errors.Is(err, netlink.ErrDumpInterrupted) || errors.Is(err, unix.EINTR); !again || n == attempts {
			return nil, err
		}
	}
}

func ipOf(ip net.IP) (netip.Addr, bool) {
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}
