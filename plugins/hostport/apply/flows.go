package apply

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/hostport/plan"
	"poplin.dev/poplin/plugins/wire"
)

// Messages and attributes of linux/netfilter/nfnetlink_conntrack.h.
const (
	flowGet, flowDelete = 1, 2

	tupleOrig, tupleReply, flowID, flowZone, flowFilter = 1, 2, 12, 18, 25

	tupleIP, tupleProto       = 1, 2
	protoNum, portSrc, toPort = 1, 2, 3

	filterOrigFlags, filterProtoNum = 1, 1 << 3
)

// flow is a UDP flow: where the client sends, who answers.
type flow struct{ front, peer netip.AddrPort }

// EndUDP ends the flows that the kernel would go on sending where they went,
// past the table: those to pods whose host ports have ended, and those that
// came to a new host port before it was one. TCP needs none of it, because
// its ends find out by themselves.
func (k *Kernel) EndUDP(ended, begun []plan.Element) error {
	notUDP := func(e plan.Element) bool { return e.Protocol != plan.UDP }
	ended = slices.DeleteFunc(slices.Clone(ended), notUDP)
	begun = slices.DeleteFunc(slices.Clone(begun), notUDP)
	if len(ended)+len(begun) == 0 {
		return nil
	}
	own, err := ownAddresses()
	if err != nil {
		return err
	}
	stale := func(f flow) bool {
		there := func(e plan.Element) bool {
			return e.HostPort == f.front.Port() && e.Host.Is4() == f.front.Addr().Is4() &&
				(e.Host == f.front.Addr() || e.Host.IsUnspecified() && own[f.front.Addr()])
		}
		to := func(e plan.Element) bool { return f.peer == netip.AddrPortFrom(e.Pod, e.PodPort) }
		return slices.ContainsFunc(ended, func(e plan.Element) bool { return there(e) && to(e) }) ||
			slices.ContainsFunc(begun, func(e plan.Element) bool { return there(e) && !to(e) })
	}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		if err := k.end(family, stale); err != nil {
			return err
		}
	}
	return nil
}

// ownAddresses are the node's.
func ownAddresses() (map[netip.Addr]bool, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the node's addresses: %w", err)
	}
	own := map[netip.Addr]bool{}
	for _, a := range list {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				own[ip.Unmap()] = true
			}
		}
	}
	return own, nil
}

func (k *Kernel) end(family byte, stale func(flow) bool) error {
	list, err := k.netfilter.Do(conntrack(flowGet, unix.NLM_F_DUMP, family, onlyUDP()))
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) { // no filters before 5.8
		list, err = k.netfilter.Do(conntrack(flowGet, unix.NLM_F_DUMP, family, nil))
	}
	if err != nil {
		return fmt.Errorf("list flows: %w", err)
	}
	for _, answer := range list {
		if len(answer) < nfgenmsg {
			continue
		}
		entry := answer[nfgenmsg:]
		if f, ok := readFlow(entry); !ok || !stale(f) {
			continue
		}
		var w wire.Attrs
		for _, kind := range []uint16{tupleOrig, flowID, flowZone} {
			if v := wire.Find(entry, kind); v != nil {
				if kind == tupleOrig {
					kind |= unix.NLA_F_NESTED
				}
				w.Bytes(kind, v)
			}
		}
		_, err := k.netfilter.Do(conntrack(flowDelete, unix.NLM_F_ACK, family, w))
		if err != nil && !errors.Is(err, unix.ENOENT) { // it may have ended by itself
			return fmt.Errorf("end flow: %w", err)
		}
	}
	return nil
}

func conntrack(kind, flags uint16, family byte, w wire.Attrs) wire.Message {
	return wire.Message{
		Kind: unix.NFNL_SUBSYS_CTNETLINK<<8 | kind, Flags: flags,
		Body: append([]byte{family, unix.NFNETLINK_V0, 0, 0}, w...),
	}
}

func onlyUDP() (w wire.Attrs) {
	w.Nest(tupleOrig, func() {
		w.Nest(tupleProto, func() { w.Bytes(protoNum, []byte{unix.IPPROTO_UDP}) })
	})
	w.Nest(flowFilter, func() { w.Host(filterOrigFlags, filterProtoNum) })
	return w
}

func readFlow(entry []byte) (f flow, ok bool) {
	// CTA_IP_V4_SRC is 1, V4_DST 2, V6_SRC 3 and V6_DST 4.
	orig, reply := wire.Find(entry, tupleOrig), wire.Find(entry, tupleReply)
	f.front, ok = end(orig, 2, 4, toPort)
	if !ok || !slices.Equal(wire.Find(orig, tupleProto, protoNum), []byte{unix.IPPROTO_UDP}) {
		return f, false
	}
	f.peer, ok = end(reply, 1, 3, portSrc)
	return f, ok
}

func end(tuple []byte, ip4, ip6, port uint16) (netip.AddrPort, bool) {
	raw := wire.Find(tuple, tupleIP, ip4)
	if raw == nil {
		raw = wire.Find(tuple, tupleIP, ip6)
	}
	a, ok := netip.AddrFromSlice(raw)
	p := wire.Find(tuple, tupleProto, port)
	if !ok || len(p) != 2 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(p)), true
}
