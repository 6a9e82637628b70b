package apply

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/poplin/plan"
	"poplin.dev/poplin/plugins/wire"
)

// Keeper puts right the host's ends of links whose ADD is over, in the network
// namespace in which it was opened. It belongs to one goroutine.
type Keeper struct{ host socket }

// OpenKeeper opens one for the calling thread's network namespace.
func OpenKeeper() (*Keeper, error) {
	host, err := open()
	return &Keeper{host}, err
}

// Close gives back what it uses; what was made stays.
func (k *Keeper) Close() { k.host.Close() }

// Name is that of a pod's link at its host's end; empty where the index is
// another device's, or nobody's any more.
func (k *Keeper) Name(index int32) (string, error) {
	l, err := k.host.describe(index)
	if errors.Is(err, unix.ENODEV) || l.group != plan.LinkGroup {
		return "", nil
	}
	return l.name, err
}

// Mend makes the host's end of p what Add made of it: up, and for each address a
// neighbour entry and a route. It says what it put right. Nothing is done where
// there is no such link, and an address to which a route leads by another pod's
// link is left to that pod. A MAC address of zero is not known, and no neighbour
// entry is made for it.
func (k *Keeper) Mend(p plan.Plan) (did []string, err error) {
	l, err := k.host.named(p.Host.Name)
	if errors.Is(err, unix.ENODEV) {
		return nil, nil
	}
	if err != nil || l.group != plan.LinkGroup {
		return nil, err
	}
	var steps []wire.Message
	if l.flags&unix.IFF_UP == 0 {
		steps = append(steps, raise(l.index))
	}
	for _, a := range p.Addresses {
		mac, err := k.host.neighbour(l.index, a.Addr)
		if p.Pod.MAC != (plan.MAC{}) && (err != nil || mac != p.Pod.MAC) {
			steps = append(steps, neighbour(l.index, a.Addr, p.Pod.MAC))
		}
		missing, err := k.unrouted(l.index, a.Addr)
		if err != nil {
			return nil, err
		}
		if missing {
			steps = append(steps, hostRoute(l.index, a))
		}
	}
	if len(steps) == 0 {
		return nil, nil
	}
	for _, s := range steps {
		did = append(did, s.What)
	}
	if _, err := k.host.do(steps...); err != nil {
		// A pod that goes takes its link along at any moment.
		if _, gone := k.host.named(p.Host.Name); errors.Is(gone, unix.ENODEV) {
			return nil, nil
		}
		return nil, fmt.Errorf("link %s: %w", p.Host.Name, err)
	}
	return did, nil
}

// unrouted reports that no route of ours leads to a by any pod's link. Where a
// look-up finds something else, a rule may have asked another table, so the table
// itself is read.
func (k *Keeper) unrouted(index int32, a netip.Addr) (bool, error) {
	if r, err := k.host.route(a); err == nil && r.bits == a.BitLen() && r.oif == index {
		return false, nil
	}
	routed, err := k.host.hostRoutes()
	if err != nil {
		return false, err
	}
	for oif, addrs := range routed {
		if slices.Contains(addrs, a) {
			name, err := k.Name(oif)
			return name == "", err
		}
	}
	return true, nil
}

// Events tell of what may have happened to the host's ends of pods' links.
type Events struct{ group *wire.Group }

// Subscribe begins to gather them, in the calling thread's network namespace.
func Subscribe() (*Events, error) {
	group, err := wire.Join(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	return &Events{group}, err
}

// Run calls dirty with the index of each device that deserves a look, 0 for all
// of them, until ctx ends. Most indexes are not those of pods' links.
func (e *Events) Run(ctx context.Context, dirty func(index int32)) error {
	return e.group.Run(ctx, func(event wire.Event) {
		if index, ok := concern(event); ok {
			dirty(index)
		}
	})
}

// concern is the device that an event is about, if it may need to be mended. With
// a device that goes down, the kernel takes away its IPv4 routes without a word.
func concern(e wire.Event) (index int32, ok bool) {
	b := e.Body
	switch {
	case e.Lost:
		return 0, true
	case e.Kind == unix.RTM_NEWLINK && len(b) >= unix.SizeofIfInfomsg:
		l := parseLink(b)
		return l.index, l.group == plan.LinkGroup && l.flags&unix.IFF_UP == 0
	case (e.Kind == unix.RTM_NEWNEIGH || e.Kind == unix.RTM_DELNEIGH) && len(b) >= unix.SizeofNdMsg:
		ours := b[0] != unix.AF_BRIDGE && (e.Kind == unix.RTM_DELNEIGH || native.Uint16(b[8:])&unix.NUD_PERMANENT != 0)
		return int32(native.Uint32(b[4:])), ours
	case e.Kind == unix.RTM_DELROUTE && len(b) >= unix.SizeofRtMsg:
		return int32(number(wire.Find(b[unix.SizeofRtMsg:], unix.RTA_OIF))), toOne(b) && b[5] == plan.RouteProtocol
	case e.Kind == unix.RTM_NEWROUTE && len(b) >= unix.SizeofRtMsg: // in the place of another
		return 0, toOne(b) && e.Flags&unix.NLM_F_REPLACE != 0
	}
	return 0, false
}

// toOne tells a route of the main table to a single address by its struct rtmsg.
func toOne(b []byte) bool {
	return b[4] == unix.RT_TABLE_MAIN && (b[0] == unix.AF_INET && b[1] == 32 || b[0] == unix.AF_INET6 && b[1] == 128)
}
