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
)

// Met is a connection whose beginning nobody has seen: connection tracking met
// it in the middle, and takes whoever sent the first packet that it saw, From,
// for the one that began it.
type Met struct {
	Proto    service.Protocol
	From, To netip.AddrPort
}

const (
	protoInfo, mark, timeoutOf = 4, 8, timeout

	protoInfoTCP = 1

	tcpState, tcpFlagsOrig, tcpFlagsReply = 1, 4, 5

	// liberal is IP_CT_TCP_FLAG_BE_LIBERAL: connection tracking gives it to both
	// ends of a TCP connection that it met in the middle, and to no other.
	liberal = 1 << 3
	// selective is IP_CT_TCP_FLAG_SACK_PERM, which such a connection has too.
	selective = 1 << 1

	// answered are IPS_SEEN_REPLY, IPS_ASSURED and IPS_CONFIRMED.
	answered = seenReply | 1<<2 | 1<<3
)

// Turn mends what connection tracking takes for the wrong way round, as wrong
// says: a TCP connection is entered the other way, and goes on; of UDP, where
// each packet may be a first one, the entry goes, and the next packet makes
// another. What has been translated is known from its beginning and left alone.
// It returns how many were mended.
//
// A packet may come between the end of an entry and the new one: it then makes
// its own, and the right one if it may.
func (c *Conn) Turn(wrong func(Met) bool) (turned int, err error) {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		var found []entry
		err := wire.Dump(c.sock, unix.NFNL_SUBSYS_CTNETLINK, msgGet, family, nil, func(b []byte) {
			if m, ok := met(b, family); ok && wrong(m) {
				found = append(found, entry{m, naming(b), turnedAround(b, m)})
			}
		})
		if err != nil && !errors.Is(err, wire.ErrInterrupted) {
			return turned, fmt.Errorf("list flows: %w", err)
		}
		for _, e := range found {
			switch err := c.turn(family, e); {
			case err == nil:
				turned++
			case !errors.Is(err, unix.ENOENT): // it may have ended by itself
				return turned, fmt.Errorf("turn flow from %s to %s/%s around: %w", e.From, e.To, e.Proto, err)
			}
		}
	}
	return turned, nil
}

// entry is one to be mended: what names it, and what takes its place.
type entry struct {
	Met
	name, instead wire.Attrs
}

func (c *Conn) turn(family byte, e entry) error {
	if err := c.delete(family, e.name); err != nil || e.Proto != service.TCP {
		return err
	}
	const msgNew = 0
	err := c.execute(msgNew, netlink.Create|netlink.Excl, family, e.instead)
	if errors.Is(err, unix.EEXIST) {
		return nil // a packet was faster
	}
	return err
}

// met reads an entry of TCP or UDP that was met in the middle, or may have been.
func met(b []byte, family byte) (m Met, ok bool) {
	k, ok := known(b, family)
	back, ok2 := address(wire.Find(b, tupleReply), family, true)
	if !ok || !ok2 || k.To != k.Dst || back != k.Src {
		return m, false
	}
	switch k.Proto {
	case service.UDP:
	case service.TCP:
		for _, end := range []uint16{tcpFlagsOrig, tcpFlagsReply} {
			if f := wire.Find(b, protoInfo, protoInfoTCP, end); len(f) == 0 || f[0]&liberal == 0 {
				return m, false
			}
		}
	default:
		return m, false
	}
	return Met{k.Proto, k.Src, k.Dst}, true
}

// naming is what tells the kernel which entry is meant.
func naming(b []byte) (w wire.Attrs) {
	for _, kind := range []uint16{tupleOrig, id, zone} {
		if v := wire.Find(b, kind); v != nil {
			if kind == tupleOrig {
				kind |= unix.NLA_F_NESTED
			}
			w.Bytes(kind, v)
		}
	}
	return w
}

// turnedAround is the same connection, begun by the other end.
func turnedAround(b []byte, m Met) (w wire.Attrs) {
	tuples := map[uint16]uint16{tupleOrig: tupleReply, tupleReply: tupleOrig}
	for _, to := range []uint16{tupleOrig, tupleReply} {
		w.Bytes(to|unix.NLA_F_NESTED, wire.Find(b, tuples[to]))
	}
	for _, kind := range []uint16{timeoutOf, mark, zone} {
		if v := wire.Find(b, kind); v != nil {
			w.Bytes(kind, v)
		}
	}
	w.Bytes(status, binary.BigEndian.AppendUint32(nil, answered))
	if m.Proto != service.TCP {
		return w
	}
	info := w.Nest(protoInfo)
	tcp := w.Nest(protoInfoTCP)
	w.Bytes(tcpState, wire.Find(b, protoInfo, protoInfoTCP, tcpState))
	for _, end := range []uint16{tcpFlagsOrig, tcpFlagsReply} {
		w.Bytes(end, []byte{liberal | selective, liberal | selective})
	}
	w.Close(tcp)
	w.Close(info)
	return w
}
