package apply

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/poplin/plan"
	"poplin.dev/poplin/plugins/wire"
)

// Check compares what p says with what there is, and names every difference.
// A MAC address or MTU of p that is zero is not compared: another plugin of
// the chain may have set its own.
func Check(p plan.Plan, netns string) error {
	ns, err := openNamespace(netns)
	if err != nil {
		return err
	}
	defer ns.close()
	host, err := open()
	if err != nil {
		return err
	}
	defer host.Close()
	var pod socket
	if err := within(ns, func() (err error) { pod, err = open(); return err }); err != nil {
		return err
	}
	defer pod.Close()

	outer, errHost := host.named(p.Host.Name)
	inner, errPod := pod.named(p.Pod.Name)
	if err := errors.Join(errHost, errPod); err != nil {
		return err
	}
	return errors.Join(
		outer.differs(p.Host), inner.differs(p.Pod),
		checkHost(host, p, outer, inner), checkPod(pod, p, outer, inner))
}

func checkHost(host socket, p plan.Plan, outer, inner linkState) error {
	var errs []error
	if outer.group != plan.LinkGroup {
		errs = append(errs, fmt.Errorf("link %s is in group %#x, not in the pods' group %#x", p.Host.Name, outer.group, plan.LinkGroup))
	}
	for _, a := range p.Addresses {
		if r, err := host.route(a.Addr); err != nil || r.oif != outer.index || r.bits != a.Addr.BitLen() {
			errs = append(errs, fmt.Errorf("no route to %s on link %s", a.Addr, p.Host.Name))
		}
		if mac, err := host.neighbour(outer.index, a.Addr); err != nil || mac != inner.mac {
			errs = append(errs, fmt.Errorf("no neighbour entry that says %s is at %s on link %s", a.Addr, inner.mac, p.Host.Name))
		}
	}
	return errors.Join(errs...)
}

func checkPod(pod socket, p plan.Plan, outer, inner linkState) error {
	have, err := pod.addresses(inner.index)
	if err != nil {
		return err
	}
	routes, err := pod.routes(inner.index)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range p.Addresses {
		if !have[a.Addr] {
			errs = append(errs, fmt.Errorf("no address %s in the pod", a.Addr))
		}
		if mac, err := pod.neighbour(inner.index, a.Gateway); err != nil || mac != outer.mac {
			errs = append(errs, fmt.Errorf("no neighbour entry in the pod that says %s is at %s", a.Gateway, outer.mac))
		}
	}
	for _, r := range p.Routes {
		if routes[r.Dst] != r.Gateway {
			errs = append(errs, fmt.Errorf("no route to %s through %s in the pod", r.Dst, r.Gateway))
		}
	}
	return errors.Join(errs...)
}

// linkState is a link as the kernel has it.
type linkState struct {
	index        int32
	flags, group uint32
	mtu          int
	mac          plan.MAC
	name, alias  string
}

func (l linkState) differs(want plan.Link) error {
	switch {
	case l.flags&unix.IFF_UP == 0:
		return fmt.Errorf("link %s is down", want.Name)
	case want.MTU != 0 && l.mtu != want.MTU:
		return fmt.Errorf("link %s has MTU %d, not %d", want.Name, l.mtu, want.MTU)
	case want.MAC != plan.MAC{} && l.mac != want.MAC:
		return fmt.Errorf("link %s has address %s, not %s", want.Name, l.mac, want.MAC)
	}
	return nil
}

func (s socket) named(name string) (linkState, error) {
	answers, err := s.do(getLink(name))
	if err != nil {
		return linkState{}, err
	}
	return readLink(answers)
}

func (s socket) describe(index int32) (linkState, error) {
	answers, err := s.do(wire.Message{What: "find link", Kind: unix.RTM_GETLINK, Body: linkHeader(index, 0, 0)})
	if err != nil {
		return linkState{}, err
	}
	return readLink(answers)
}

func readLink(answers [][]byte) (l linkState, err error) {
	if len(answers) != 1 || len(answers[0]) < unix.SizeofIfInfomsg {
		return l, fmt.Errorf("find link: %w", unix.ENODEV)
	}
	return parseLink(answers[0]), nil
}

// parseLink reads a message that is long enough to have struct ifinfomsg.
func parseLink(b []byte) (l linkState) {
	l.index, l.flags = int32(native.Uint32(b[4:])), native.Uint32(b[8:])
	for kind, v := range wire.All(b[unix.SizeofIfInfomsg:]) {
		switch kind {
		case unix.IFLA_GROUP:
			l.group = number(v)
		case unix.IFLA_MTU:
			l.mtu = int(number(v))
		case unix.IFLA_IFNAME:
			l.name = unix.ByteSliceToString(v)
		case unix.IFLA_IFALIAS:
			l.alias = unix.ByteSliceToString(v)
		case unix.IFLA_ADDRESS:
			copy(l.mac[:], v)
		}
	}
	return l
}

// routeState is what a look-up found.
type routeState struct {
	oif  int32
	bits int
}

// route is the entry of the routing table that a packet to dst would use
// (RTM_F_FIB_MATCH: 4.13).
func (s socket) route(dst netip.Addr) (routeState, error) {
	const fibMatch = 0x2000
	m := wire.Message{What: fmt.Sprintf("look up %s", dst), Kind: unix.RTM_GETROUTE, Body: routeHeader(netip.PrefixFrom(dst, dst.BitLen()), 0, 0, fibMatch)}
	m.Body.Bytes(unix.RTA_DST, dst.AsSlice())
	answers, err := s.do(m)
	if err != nil || len(answers) != 1 || len(answers[0]) < unix.SizeofRtMsg {
		return routeState{}, errors.Join(err, fmt.Errorf("look up %s: no route", dst))
	}
	b := answers[0]
	return routeState{int32(number(wire.Find(b[unix.SizeofRtMsg:], unix.RTA_OIF))), int(b[1])}, nil
}

// routes is the gateway of each destination on a link.
func (s socket) routes(index int32) (map[netip.Prefix]netip.Addr, error) {
	found := map[netip.Prefix]netip.Addr{}
	for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		m := wire.Message{What: "list routes", Kind: unix.RTM_GETROUTE, Flags: unix.NLM_F_DUMP, Body: routeHeader(netip.PrefixFrom(any, 0), 0, 0, 0)}
		answers, err := s.do(m)
		if err != nil {
			return nil, err
		}
		for _, b := range answers {
			if len(b) < unix.SizeofRtMsg {
				continue
			}
			a := b[unix.SizeofRtMsg:]
			dst, ok := netip.AddrFromSlice(wire.Find(a, unix.RTA_DST))
			if !ok {
				dst = any
			}
			gateway, ok := netip.AddrFromSlice(wire.Find(a, unix.RTA_GATEWAY))
			if ok && int32(number(wire.Find(a, unix.RTA_OIF))) == index {
				found[netip.PrefixFrom(dst, int(b[1]))] = gateway
			}
		}
	}
	return found, nil
}

func (s socket) addresses(index int32) (map[netip.Addr]bool, error) {
	m := wire.Message{What: "list addresses", Kind: unix.RTM_GETADDR, Flags: unix.NLM_F_DUMP, Body: make([]byte, unix.SizeofIfAddrmsg)}
	answers, err := s.do(m)
	if err != nil {
		return nil, err
	}
	found := map[netip.Addr]bool{}
	for _, b := range answers {
		if len(b) < unix.SizeofIfAddrmsg || int32(native.Uint32(b[4:])) != index {
			continue
		}
		if a, ok := netip.AddrFromSlice(wire.Find(b[unix.SizeofIfAddrmsg:], unix.IFA_ADDRESS)); ok {
			found[a] = true
		}
	}
	return found, nil
}

// neighbour is the MAC address of a permanent entry (RTM_GETNEIGH of one
// entry: 5.0).
func (s socket) neighbour(index int32, a netip.Addr) (mac plan.MAC, err error) {
	m := wire.Message{What: fmt.Sprintf("find neighbour %s", a), Kind: unix.RTM_GETNEIGH, Body: neighHeader(a, index, 0)}
	m.Body.Bytes(unix.NDA_DST, a.AsSlice())
	answers, err := s.do(m)
	if err != nil {
		return mac, err
	}
	if len(answers) != 1 || len(answers[0]) < unix.SizeofNdMsg || native.Uint16(answers[0][8:])&unix.NUD_PERMANENT == 0 {
		return mac, fmt.Errorf("find neighbour %s: none that is permanent", a)
	}
	copy(mac[:], wire.Find(answers[0][unix.SizeofNdMsg:], unix.NDA_LLADDR))
	return mac, nil
}

func number(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return native.Uint32(b)
}
