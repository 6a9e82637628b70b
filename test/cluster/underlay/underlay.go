// Package underlay makes the network between nodes: a LAN, which is a bridge in
// a network namespace of its own, a network namespace for each host, and
// routers. In: names, addresses, routes, and the prefixes whose packets the LAN
// must not carry. Out: named network namespaces below /run/netns. It touches
// nothing in the machine's own network namespace, and refuses names that are
// taken.
package underlay

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// LAN is a bridge that is also the gateway of its hosts, but forwards nothing.
type LAN struct {
	Namespace string
	Gateways  []netip.Prefix
	// Forbidden are the prefixes to and from which no frame passes: those of
	// pods, so that nothing but an overlay can carry their packets.
	Forbidden []netip.Prefix
	// Routes are the gateway's own, for what answers there.
	Routes []Route
}

// Host is a node, or a router with a leg in the LAN.
type Host struct {
	Namespace string
	Port      string // name of its port at the other end
	Addresses []netip.Prefix
	Gateways  []netip.Addr
	Routes    []Route
}

// Route sends a prefix through a gateway.
type Route struct {
	To  netip.Prefix
	Via netip.Addr
}

// Router stands between the LAN and one host of another subnet.
type Router struct {
	Host
	Leg []netip.Prefix // its addresses on the far side
}

const (
	bridge = "lan"
	device = "eth0"
)

// Make makes the LAN.
func (l LAN) Make() error {
	if err := create(l.Namespace); err != nil {
		return err
	}
	return within(l.Namespace, func(h *netlink.Handle) error {
		// Frames between nodes must not run through this namespace's netfilter.
		for _, name := range []string{"ip", "ip6", "arp"} {
			if err := sysctl("bridge/bridge-nf-call-"+name+"tables", "0"); err != nil {
				return err
			}
		}
		snooping := false // no querier here: a snooping bridge would forget IPv6's solicited-node groups
		attrs := netlink.NewLinkAttrs()
		attrs.Name = bridge
		br := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}
		if err := h.LinkAdd(br); err != nil {
			return fmt.Errorf("make bridge: %w", err)
		}
		if err := configure(h, bridge, l.Gateways); err != nil {
			return err
		}
		// Programs out here, such as a browser, talk to themselves.
		if err := configure(h, "lo", nil); err != nil {
			return err
		}
		if err := addRoutes(h, bridge, l.Routes); err != nil {
			return err
		}
		return forbid(l.Namespace, "bridge", l.Forbidden)
	})
}

// Connect makes a host's namespace and plugs it into the LAN.
func (l LAN) Connect(host Host) error {
	if err := create(host.Namespace); err != nil {
		return err
	}
	return l.plug(host)
}

// ConnectRouter makes a router.
func (l LAN) ConnectRouter(router Router) error {
	if err := l.Connect(router.Host); err != nil {
		return err
	}
	return within(router.Namespace, func(*netlink.Handle) error {
		for _, name := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := sysctl(name, "1"); err != nil {
				return err
			}
		}
		return forbid(router.Namespace, "inet", l.Forbidden)
	})
}

// ConnectBehind makes a host's namespace and plugs it into the router's far side.
func (r Router) ConnectBehind(host Host) error {
	if err := create(host.Namespace); err != nil {
		return err
	}
	if err := cable(host, r.Namespace); err != nil {
		return err
	}
	return within(r.Namespace, func(h *netlink.Handle) error { return configure(h, host.Port, r.Leg) })
}

// plug connects a namespace that exists.
func (l LAN) plug(host Host) error {
	if err := cable(host, l.Namespace); err != nil {
		return err
	}
	return within(l.Namespace, func(h *netlink.Handle) error {
		port, err := h.LinkByName(host.Port)
		if err != nil {
			return fmt.Errorf("find port %s: %w", host.Port, err)
		}
		br, err := h.LinkByName(bridge)
		if err != nil {
			return fmt.Errorf("find bridge: %w", err)
		}
		if err := h.LinkSetMaster(port, br); err != nil {
			return fmt.Errorf("plug in port %s: %w", host.Port, err)
		}
		return configure(h, host.Port, nil)
	})
}

// cable makes the host's device with its other end, the port, in another
// namespace already, and configures the host's.
func cable(host Host, other string) error {
	far, err := netns.GetFromPath(Path(other))
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", other, err)
	}
	defer func() { _ = far.Close() }()
	return within(host.Namespace, func(h *netlink.Handle) error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = device
		veth := &netlink.Veth{LinkAttrs: attrs, PeerName: host.Port, PeerNamespace: netlink.NsFd(int(far))}
		if err := h.LinkAdd(veth); err != nil {
			return fmt.Errorf("make device of %s: %w", host.Namespace, err)
		}
		if err := configure(h, "lo", nil); err != nil {
			return err
		}
		if err := configure(h, device, host.Addresses); err != nil {
			return err
		}
		routes := host.Routes
		for _, gateway := range host.Gateways {
			routes = append(routes, Route{To: netip.PrefixFrom(unspecified(gateway), 0), Via: gateway})
		}
		return addRoutes(h, device, routes)
	})
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

func addRoutes(h *netlink.Handle, name string, routes []Route) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	for _, r := range routes {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(r.To), Gw: r.Via.AsSlice()}
		if err := h.RouteAdd(route); err != nil {
			return fmt.Errorf("add route to %s via %s: %w", r.To, r.Via, err)
		}
	}
	return nil
}

// configure brings a link up with its addresses. It runs inside the namespace.
func configure(h *netlink.Handle, name string, addresses []netip.Prefix) error {
	link, err := h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	// Duplicate address detection costs a second or two of each start.
	if err := sysctl("ipv6/conf/"+name+"/accept_dad", "0"); err != nil {
		return err
	}
	if err := h.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", name, err)
	}
	for _, address := range addresses {
		if err := h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(address)}); err != nil {
			return fmt.Errorf("add address %s to %s: %w", address, name, err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// Unplug removes a port, so that it is free at once: a namespace's devices go
// some time after the namespace.
func Unplug(namespace, port string) error {
	return within(namespace, func(h *netlink.Handle) error {
		link, err := h.LinkByName(port)
		var absent netlink.LinkNotFoundError
		if errors.As(err, &absent) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("find port %s: %w", port, err)
		}
		if err := h.LinkDel(link); err != nil {
			return fmt.Errorf("unplug port %s: %w", port, err)
		}
		return nil
	})
}
