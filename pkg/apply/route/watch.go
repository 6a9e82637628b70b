package route

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/program"
)

// Events is a subscription to the kernel's network events. They carry no data
// on purpose, they only say "dirty": what is wrong is found by reading.
type Events struct {
	sock *nl.NetlinkSocket
	// name is the overlay device; overlay and underlay are the indexes of
	// the two devices that matter, 0 while unknown.
	name              string
	overlay, underlay atomic.Int32
}

// Subscribe hears from now on what happens in the calling thread's network
// namespace; Run passes it on.
func (a *Applier) Subscribe() (*Events, error) {
	sock, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH,
		unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("subscribe to network events: %w", err)
	}
	// A burst beyond the buffer is no loss, the socket reports it and
	// everything is dirty; a larger one only makes that rare.
	_ = sock.SetReceiveBufferSize(1<<20, true)
	a.events = &Events{sock: sock, name: a.conf.Link}
	return a.events, nil
}

// Run calls dirty for every event that may concern us, until ctx ends.
func (e *Events) Run(ctx context.Context, dirty func()) {
	defer context.AfterFunc(ctx, e.sock.Close)()
	for ctx.Err() == nil {
		msgs, _, err := e.sock.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			dirty()
			continue
		}
		for _, m := range msgs {
			if e.concern(m) {
				dirty()
				break
			}
		}
	}
}

// setOverlay and setUnderlay remember a device by its index; a nil Events is fine.
func (e *Events) setOverlay(index int) {
	if e != nil {
		e.overlay.Store(int32(index))
	}
}

func (e *Events) setUnderlay(index int) {
	if e != nil {
		e.underlay.Store(int32(index))
	}
}

// concern tells what may be ours from the many events of pods that come and
// go. Our own writes come back as events too: one more pass then finds
// nothing to do.
func (e *Events) concern(m syscall.NetlinkMessage) bool {
	// All headers here begin with a family; the device's index is the
	// second word, except in routes.
	if len(m.Data) < unix.SizeofRtMsg {
		return false
	}
	index := int32(binary.NativeEndian.Uint32(m.Data[4:8]))
	overlay, underlay := e.overlay.Load(), e.underlay.Load()
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return index == overlay || index == underlay || e.named(m.Data)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return index == overlay || index == underlay || underlay == 0
	case unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH:
		return index == overlay
	case unix.RTM_DELROUTE:
		return m.Data[5] == program.Protocol && !otherDevice(m.Data, overlay, underlay)
	case unix.RTM_NEWROUTE: // somebody put a route in the place of another
		return m.Header.Flags&unix.NLM_F_REPLACE != 0 && !otherDevice(m.Data, overlay, underlay)
	}
	return false
}

// named finds a new device that has the overlay's name.
func (e *Events) named(data []byte) bool {
	if len(data) < unix.SizeofIfInfomsg {
		return false
	}
	attrs, err := nl.ParseRouteAttr(data[unix.SizeofIfInfomsg:])
	if err != nil {
		return true
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.IFLA_IFNAME {
			return nl.BytesToString(a.Value) == e.name
		}
	}
	return false
}

// otherDevice tells a pod's route, which has our protocol too.
func otherDevice(data []byte, overlay, underlay int32) bool {
	if data[5] != program.Protocol {
		return false
	}
	attrs, err := nl.ParseRouteAttr(data[unix.SizeofRtMsg:])
	if err != nil {
		return false
	}
	for _, a := range attrs {
		if a.Attr.Type == unix.RTA_OIF && len(a.Value) == 4 {
			oif := int32(binary.NativeEndian.Uint32(a.Value))
			return oif != overlay && oif != underlay && oif != loopback
		}
	}
	return false
}

// loopback is the device the kernel names for IPv6 routes that have none.
const loopback = 1
