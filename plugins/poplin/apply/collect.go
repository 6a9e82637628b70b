package apply

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/poplin/plan"
)

// Collect removes the host's ends of a network's links, and so the links, but
// for those that keep names. It goes on past errors and returns them all.
func Collect(network string, keep map[string]bool) error {
	host, err := open()
	if err != nil {
		return err
	}
	defer host.close()
	list := message{kind: unix.RTM_GETLINK, flags: unix.NLM_F_DUMP, body: linkHeader(0, 0, 0)}
	answers, err := host.do(step{"list links", list})
	errs := []error{err}
	for _, b := range answers {
		if len(b) < unix.SizeofIfInfomsg {
			continue
		}
		l := parseLink(b)
		if l.group != plan.LinkGroup || !plan.BelongsTo(network, l.name, l.alias) || keep[l.name] {
			continue
		}
		if _, err := host.do(deleteLink(l.name)); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Kernel is what the host's network says of attachments.
type Kernel struct{}

// Linked reports whether the attachment's link is there.
func (Kernel) Linked(containerID, ifName string) (bool, error) {
	host, err := open()
	if err != nil {
		return false, err
	}
	defer host.close()
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
	defer host.close()
	r, err := host.route(a)
	return err == nil && r.bits == a.BitLen(), nil
}
