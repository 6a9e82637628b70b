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
