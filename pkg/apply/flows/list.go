package flows

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
)

const (
	status, timeout = 3, 7

	// seenReply is IPS_SEEN_REPLY.
	seenReply = 1 << 1
)

// List has the flows that wanted says, at most so many; protocols without
// ports are left out.
func (c *Conn) List(most int, wanted func(facts.Known) bool) (list []facts.Known, err error) {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		err := wire.Dump(c.sock, unix.NFNL_SUBSYS_CTNETLINK, msgGet, family, nil, func(entry []byte) {
			if k, ok := known(entry, family); ok && len(list) < most && wanted(k) {
				list = append(list, k)
			}
		})
		if err != nil && !errors.Is(err, wire.ErrInterrupted) {
			return list, fmt.Errorf("list flows: %w", err)
		}
	}
	return list, nil
}

func known(entry []byte, family byte) (k facts.Known, ok bool) {
	proto := wire.Find(entry, tupleOrig, tupleProto, protoNum)
	if len(proto) != 1 {
		return k, false
	}
	k.Proto = service.Protocol(proto[0])
	ends := []*netip.AddrPort{&k.Src, &k.Dst, &k.To}
	for i, end := range []struct {
		tuple       uint16
		destination bool
	}{{tupleOrig, false}, {tupleOrig, true}, {tupleReply, false}} {
		if *ends[i], ok = address(wire.Find(entry, end.tuple), family, end.destination); !ok {
			return k, false
		}
	}
	k.Answered = wire.Number(wire.Find(entry, status))&seenReply != 0
	if b := wire.Find(entry, timeout); len(b) == 4 {
		k.Left = int(binary.BigEndian.Uint32(b))
	}
	return k, true
}
