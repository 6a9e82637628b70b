package route

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/pkg/cluster"
)

// Underlay finds the device that holds the first of addrs that any device
// holds; with a choice, only among the devices that it allows: a name,
// "regexp:" and an expression for names, "cidr:" and the network in which the
// address has to be, or "reach:" and an address to which the device leads.
// From then on its changes are heard of; while there is none, those of all
// addresses are.
func (a *Applier) Underlay(choice string, addrs []netip.Addr) (cluster.Underlay, error) {
	a.events.setUnderlay(0)
	allowed, err := a.chooser(choice)
	if err != nil {
		return cluster.Underlay{}, fmt.Errorf("find underlay: interface %q in the configuration: %w", choice, err)
	}
	held, err := whole(func() ([]netlink.Addr, error) { return a.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return cluster.Underlay{}, fmt.Errorf("list addresses: %w", err)
	}
	for _, want := range addrs {
		for _, h := range held {
			ip, ok := ipOf(h.IP)
			if !ok || ip != want {
				continue
			}
			link, err := a.handle.LinkByIndex(h.LinkIndex)
			if err != nil {
				return cluster.Underlay{}, fmt.Errorf("find device of %s: %w", want, err)
			}
			if attrs := link.Attrs(); allowed(attrs, want) {
				a.events.setUnderlay(attrs.Index)
				return cluster.Underlay{Link: attrs.Name, Index: attrs.Index, Addr: want, MTU: attrs.MTU}, nil
			}
		}
	}
	if choice != "" {
		return cluster.Underlay{}, fmt.Errorf("find underlay: device %s holds none of the Node's InternalIPs %v, check interface in the configuration", choice, addrs)
	}
	return cluster.Underlay{}, fmt.Errorf("find underlay: no device holds one of the Node's InternalIPs %v, check the kubelet's --node-ip", addrs)
}

// chooser says whether a device with an address of the node may be the underlay.
func (a *Applier) chooser(choice string) (func(*netlink.LinkAttrs, netip.Addr) bool, error) {
	kind, value, _ := strings.Cut(choice, ":") // no device's name has a colon
	switch kind {
	case "regexp":
		names, err := regexp.Compile(value)
		return func(l *netlink.LinkAttrs, _ netip.Addr) bool { return names.MatchString(l.Name) }, err
	case "cidr":
		network, err := netip.ParsePrefix(value)
		return func(_ *netlink.LinkAttrs, ip netip.Addr) bool { return network.Contains(ip) }, err
	case "reach":
		index, err := a.leadsTo(value)
		return func(l *netlink.LinkAttrs, _ netip.Addr) bool { return l.Index == index }, err
	}
	return func(l *netlink.LinkAttrs, _ netip.Addr) bool { return choice == "" || choice == l.Name }, nil
}

func (a *Applier) leadsTo(address string) (index int, err error) {
	to, err := netip.ParseAddr(address)
	if err != nil {
		return 0, err
	}
	routes, err := a.handle.RouteGet(to.AsSlice())
	if err != nil {
		return 0, fmt.Errorf("find route to %s: %w", to, err)
	}
	if len(routes) == 0 {
		return 0, fmt.Errorf("find route to %s: there is none", to)
	}
	return routes[0].LinkIndex, nil
}
