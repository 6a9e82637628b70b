// Package flows mends what the kernel's connection tracking remembers and should
// not: it ends UDP flows that are sent to an endpoint which is gone, and turns
// around connections that it met in the middle and takes for begun by the wrong
// end. Inputs are judgements of a flow; outputs are how many were mended. It
// refuses to cut TCP: what drains is left alone, and its ends find out by
// themselves.
package flows

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/vip"
)

// Conn is a socket to the kernel's connection tracking.
type Conn struct{ sock *netlink.Conn }

// Open connects to the calling thread's network namespace.
func Open() (*Conn, error) {
	sock, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open conntrack socket: %w", err)
	}
	// A table of a million flows comes faster than it is looked at.
	if err := sock.SetReadBuffer(4 << 20); err != nil {
		sock.Close()
		return nil, fmt.Errorf("enlarge conntrack socket: %w", err)
	}
	return &Conn{sock}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.sock.Close() }

// Messages and attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	msgGet, msgDelete = 1, 2

	tupleOrig, tupleReply, id, zone, filter = 1, 2, 12, 18, 25

	tupleIP, tupleProto = 1, 2

	protoNum, srcPort, dstPort = 1, 2, 3

	filterOrigFlags = 1
	filterProtoNum  = 1 << 3
)

// EndUDP ends the flows that stale says: front is where the client sends, to
// who answers. A flow that begins anew finds its way by the rules of now.
func (c *Conn) EndUDP(stale func(front vip.Front, to netip.AddrPort) bool) (int, error) {
	ended := 0
	var errs []error
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		n, err := c.end(family, stale)
		ended += n
		errs = append(errs, err)
	}
	return ended, errors.Join(errs...)
}

func (c *Conn) end(family byte, stale func(vip.Front, netip.AddrPort) bool) (int, error) {
	var found []wire.Attrs
	look := func(entry []byte) {
		proto := wire.Find(entry, tupleOrig, tupleProto, protoNum)
		to, ok := address(wire.Find(entry, tupleReply), family, false)
		front, ok2 := address(wire.Find(entry, tupleOrig), family, true)
		if len(proto) != 1 || service.Protocol(proto[0]) != service.UDP || !ok || !ok2 {
			return
		}
		if !stale(vip.Front{Addr: front.Addr(), Proto: service.UDP, Port: front.Port()}, to) {
			return
		}
		found = append(found, naming(entry))
	}
	// Kernels from 5.8 on leave everything but UDP out.
	err := wire.Dump(c.sock, unix.NFNL_SUBSYS_CTNETLINK, msgGet, family, onlyUDP(), look)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		err = wire.Dump(c.sock, unix.NFNL_SUBSYS_CTNETLINK, msgGet, family, nil, look)
	}
	if err != nil && !errors.Is(err, wire.ErrInterrupted) {
		return 0, fmt.Errorf("list flows: %w", err)
	}
	ended := 0
	for _, w := range found {
		switch err := c.delete(family, w); {
		case err == nil:
			ended++
		case !errors.Is(err, unix.ENOENT): // it may have ended by itself
			return ended, fmt.Errorf("end flow: %w", err)
		}
	}
	return ended, nil
}

func onlyUDP() (w wire.Attrs) {
	tuple := w.Nest(tupleOrig)
	proto := w.Nest(tupleProto)
	w.Bytes(protoNum, []byte{byte(service.UDP)})
	w.Close(proto)
	w.Close(tuple)
	f := w.Nest(filter)
	w.Bytes(filterOrigFlags, binary.NativeEndian.AppendUint32(nil, filterProtoNum))
	w.Close(f)
	return w
}

// address is one end of a tuple.
func address(tuple []byte, family byte, destination bool) (netip.AddrPort, bool) {
	// CTA_IP_V4_SRC is 1, V4_DST 2, V6_SRC 3 and V6_DST 4.
	ip, port := uint16(1), uint16(srcPort)
	if family == unix.AF_INET6 {
		ip = 3
	}
	if destination {
		ip, port = ip+1, dstPort
	}
	a, ok := netip.AddrFromSlice(wire.Find(tuple, tupleIP, ip))
	p := wire.Find(tuple, tupleProto, port)
	if !ok || len(p) != 2 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(p)), true
}

func (c *Conn) delete(family byte, w wire.Attrs) error { return c.execute(msgDelete, 0, family, w) }

func (c *Conn) execute(kind int, flags netlink.HeaderFlags, family byte, w wire.Attrs) error {
	_, err := c.sock.Execute(netlink.Message{
		Header: netlink.Header{
			Type: netlink.HeaderType(unix.NFNL_SUBSYS_CTNETLINK<<8 | kind), Flags: netlink.Request | netlink.Acknowledge | flags,
		},
		Data: append([]byte{family, unix.NFNETLINK_V0, 0, 0}, w...),
	})
	return err
}
