package route

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program"
)

// Events is a subscription to the kernel's network events. They carry no data
// on purpose, they only say "dirty": what is wrong is found by reading.
type Events struct {
	sock *os.File
	of   *Applier
	// own is the address of the socket that writes: what bears it is no news.
	own uint32
	// overlay and underlay are the indexes of the two devices that matter, 0
	// while unknown.
	overlay, underlay atomic.Int32
}

// groups are the kinds of events, as bits of a socket's address.
const groups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_NEIGH-1) |
	1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_IFADDR-1) |
	1<<(unix.RTNLGRP_IPV4_ROUTE-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1)

// Subscribe hears from now on what happens in the calling thread's network
// namespace; Run passes it on.
func (a *Applier) Subscribe() (*Events, error) {
	own, err := a.batch.sock.GetPid()
	if err != nil {
		return nil, fmt.Errorf("find address of netlink socket: %w", err)
	}
	sock, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open socket for network events: %w", err)
	}
	e := &Events{sock: os.NewFile(uintptr(sock), "network events"), of: a, own: own}
	if err := unix.Bind(sock, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return nil, errors.Join(fmt.Errorf("subscribe to network events: %w", err), e.sock.Close())
	}
	// A burst beyond the buffer is no loss, the socket reports it and
	// everything is dirty; a larger one only makes that rare.
	_ = unix.SetsockoptInt(sock, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<20)
	a.events = e
	return e, nil
}

// Run calls dirty for every event that may concern us, until ctx ends.
func (e *Events) Run(ctx context.Context, dirty func()) {
	defer context.AfterFunc(ctx, func() { _ = e.sock.Close() })()
	buf := make([]byte, 1<<15) // an event is one message
	for ctx.Err() == nil {
		n, err := e.sock.Read(buf)
		if errors.Is(err, unix.ENOBUFS) {
			dirty()
			continue
		}
		messages, _ := syscall.ParseNetlinkMessage(buf[:max(n, 0)])
		if slices.ContainsFunc(messages, e.concern) {
			dirty()
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

// concern tells what may be ours, and is news, from the many events of pods
// that come and go, and from the echo of our own writes.
func (e *Events) concern(m syscall.NetlinkMessage) bool {
	// All headers here begin with a family; the device's index is the
	// second word, except in routes.
	if len(m.Data) < unix.SizeofRtMsg {
		return false
	}
	if m.Header.Pid == e.own {
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
		return index == overlay && !e.of.holds(m)
	case unix.RTM_DELROUTE:
		return m.Data[5] == program.Protocol && !otherDevice(m.Data, overlay, underlay)
	case unix.RTM_NEWROUTE: // somebody put a route in the place of another
		return m.Header.Flags&unix.NLM_F_REPLACE != 0 && !otherDevice(m.Data, overlay, underlay)
	}
	return false
}

// holds reports that an event about a neighbour or a forwarding entry says
// what the last Set left: the kernel does not say who changed one, so the echo
// of our own writes is known by what it says.
func (a *Applier) holds(m syscall.NetlinkMessage) bool {
	n, err := netlink.NeighDeserialize(m.Data)
	if err != nil {
		return false
	}
	ip, _ := ipOf(n.IP)
	var mac cluster.MAC // one that is not said is none of ours
	copy(mac[:], n.HardwareAddr)
	there := m.Header.Type == unix.RTM_NEWNEIGH && n.State&netlink.NUD_PERMANENT != 0
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.state == nil {
		return false
	}
	if n.Family == unix.AF_BRIDGE {
		to, wanted := a.state.fdb[mac]
		return there == wanted && (!there || to == ip)
	}
	its, wanted := a.state.neighs[ip]
	return there == wanted && (!there || its == mac)
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
			return nl.BytesToString(a.Value) == e.of.conf.Link
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
