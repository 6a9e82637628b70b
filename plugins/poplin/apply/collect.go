package apply

import (
	"errors"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/poplin/plan"
	"poplin.dev/poplin/plugins/wire"
)

// Collect removes the host's ends of a network's links, and so the links, but
// for those that keep names. It goes on past errors and returns them all.
func Collect(network string, keep map[string]bool) error {
	host, err := open()
	if err != nil {
		return err
	}
	defer host.Close()
	links, err := host.links(network)
	errs := []error{err}
	for _, l := range links {
		if keep[l.name] {
			continue
		}
		if _, err := host.do(deleteLink(l.name)); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Attached lists whose links a network has: pods by namespace and name,
// containers that are none by their id.
func Attached(network string) (names []string, err error) {
	host, err := open()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	links, err := host.links(network)
	for _, l := range links {
		if name := strings.TrimPrefix(l.alias, network+":"); name != "" {
			names = append(names, name)
		}
	}
	return names, err
}

// links are the host's ends of a network's links.
func (s socket) links(network string) (list []linkState, err error) {
	answers, err := s.do(wire.Message{What: "list links", Kind: unix.RTM_GETLINK, Flags: unix.NLM_F_DUMP, Body: linkHeader(0, 0, 0)})
	for _, b := range answers {
		if len(b) < unix.SizeofIfInfomsg {
			continue
		}
		if l := parseLink(b); l.group == plan.LinkGroup && plan.BelongsTo(network, l.name, l.alias) {
			list = append(list, l)
		}
	}
	return list, err
}

// Link is the host's end of an attachment.
type Link struct {
	// Name derives from the attachment, Alias says whose it is; it has none
	// while its ADD has not come far.
	Name, Alias string
	// Addrs are the addresses that routes lead to it for.
	Addrs []netip.Addr
}

// Links lists the host's ends of a network's links.
func Links(network string) ([]Link, error) {
	host, err := open()
	if err != nil {
		return nil, err
	}
	defer host.Close()
	found, err := host.links(network)
	if err != nil {
		return nil, err
	}
	routed, err := host.hostRoutes()
	list := make([]Link, len(found))
	for i, l := range found {
		list[i] = Link{l.name, l.alias, routed[l.index]}
	}
	return list, err
}

// Alias is what a link says of whose it is, and whether there is such a link.
func Alias(link string) (alias string, found bool, err error) {
	host, err := open()
	if err != nil {
		return "", false, err
	}
	defer host.Close()
	l, err := host.named(link)
	if errors.Is(err, unix.ENODEV) {
		return "", false, nil
	}
	return l.alias, err == nil, err
}

// hostRoutes is which single addresses our routes lead to, by link.
func (s socket) hostRoutes() (map[int32][]netip.Addr, error) {
	found := map[int32][]netip.Addr{}
	for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		answers, err := s.do(wire.Message{What: "list routes", Kind: unix.RTM_GETROUTE, Flags: unix.NLM_F_DUMP, Body: routeHeader(netip.PrefixFrom(any, 0), 0, 0, 0)})
		if err != nil {
			return nil, err
		}
		for _, b := range answers {
			if len(b) < unix.SizeofRtMsg || b[4] != unix.RT_TABLE_MAIN || b[5] != plan.RouteProtocol || int(b[1]) != any.BitLen() {
				continue
			}
			if a, ok := netip.AddrFromSlice(wire.Find(b[unix.SizeofRtMsg:], unix.RTA_DST)); ok {
				index := int32(number(wire.Find(b[unix.SizeofRtMsg:], unix.RTA_OIF)))
				found[index] = append(found[index], a)
			}
		}
	}
	return found, nil
}

// Kernel is what the host's network says of attachments.
type Kernel struct{}

// Linked reports whether the attachment's link is there.
func (Kernel) Linked(containerID, ifName string) (bool, error) {
	host, err := open()
	if err != nil {
		return false, err
	}
	defer host.Close()
	_, err = host.link(plan.HostName(containerID, ifName))
	if errors.Is(err, unix.ENODEV) {
		return false, nil
	}
	return err == nil, err
}

// Routed reports whether a route leads to this one address.
func (Kernel) Routed(a netip.Addr) (bool, error) {
	host, err := open()
	if err != nil {
		return false, err
	}
	defer host.Close()
	r, err := host.route(a)
	return err == nil && r.bits == a.BitLen(), nil
}
