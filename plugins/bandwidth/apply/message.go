package apply

import (
	"encoding/binary"
	"math"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/bandwidth"
	"poplin.dev/poplin/plugins/wire"
)

// From linux/pkt_sched.h, linux/pkt_cls.h, linux/tc_act/tc_mirred.h and
// linux/if_link.h; not in golang.org/x/sys.
const (
	tcaKind, tcaOptions = 1, 2

	tbfParms, tbfRate64, tbfBurst = 1, 4, 6

	u32Selector, u32Action = 5, 7

	actionKind, actionOptions = 1, 2
	mirredParms               = 2

	handleRoot, handleIngress = 0xffffffff, 0xfffffff1

	addrGenMode, addrGenNone = 8, 1
)

var native = binary.NativeEndian

// linkHeader is struct ifinfomsg.
func linkHeader(index int, flags uint32) wire.Attrs {
	b := make(wire.Attrs, 4, 128)
	b = native.AppendUint32(b, uint32(index))
	b = native.AppendUint32(b, flags)
	return native.AppendUint32(b, flags)
}

// trafficHeader is struct tcmsg.
func trafficHeader(index int, handle, parent, info uint32) wire.Attrs {
	b := make(wire.Attrs, 4, 256)
	for _, v := range []uint32{uint32(index), handle, parent, info} {
		b = native.AppendUint32(b, v)
	}
	return b
}

func newDevice(name string) wire.Message {
	w := linkHeader(0, 0)
	w.Text(unix.IFLA_IFNAME, name)
	w.Nest(unix.IFLA_LINKINFO, func() { w.Text(unix.IFLA_INFO_KIND, "ifb") })
	return wire.Message{Kind: unix.RTM_NEWLINK, Flags: unix.NLM_F_CREATE, Body: w}
}

func noAddresses(index int) wire.Message {
	w := linkHeader(index, 0)
	w.Nest(unix.IFLA_AF_SPEC, func() {
		w.Nest(unix.AF_INET6, func() { w.Bytes(addrGenMode, []byte{addrGenNone}) })
	})
	return wire.Message{Kind: unix.RTM_NEWLINK, Body: w}
}

func raise(index int) wire.Message {
	return wire.Message{Kind: unix.RTM_NEWLINK, Body: linkHeader(index, unix.IFF_UP)}
}

// bucket makes a token bucket all that leaves a device. What is more than
// the burst waits for up to 25 ms, then is dropped.
func bucket(index int, r bandwidth.Rate) wire.Message {
	const latencyParts = 40 // of a second
	rate, burst := min(r.PerSecond, math.MaxUint32), min(r.Burst, math.MaxUint32)
	limit := min(r.PerSecond/latencyParts+burst, math.MaxUint32)
	w := trafficHeader(index, 0x10000, handleRoot, 0)
	w.Text(tcaKind, "tbf")
	w.Nest(tcaOptions, func() {
		// struct tc_tbf_qopt: tc_ratespec of rate and peak, limit, buffer, mtu.
		// Where tbfBurst is given, the kernel reckons the buffer itself.
		const ethernet = 1
		parms := []byte{0, ethernet, 0, 0, 0, 0, 0, 0}
		parms = native.AppendUint32(parms, uint32(rate))
		parms = append(parms, make([]byte, 12)...)
		parms = native.AppendUint32(parms, uint32(limit))
		parms = append(parms, make([]byte, 8)...)
		w.Bytes(tbfParms, parms)
		w.Host(tbfBurst, uint32(burst))
		if r.PerSecond > math.MaxUint32 {
			w.Bytes(tbfRate64, native.AppendUint64(nil, r.PerSecond))
		}
	})
	return wire.Message{Kind: unix.RTM_NEWQDISC, Flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, Body: w}
}

func ingress(index int) wire.Message {
	w := trafficHeader(index, 0xffff0000, handleIngress, 0)
	w.Text(tcaKind, "ingress")
	return wire.Message{Kind: unix.RTM_NEWQDISC, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Body: w}
}

// redirect sends all that comes in by one device out by another.
func redirect(index, to int) wire.Message {
	const priority = 1
	everything := binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL)
	w := trafficHeader(index, 0, 0xffff0000, priority<<16|uint32(native.Uint16(everything)))
	w.Text(tcaKind, "u32")
	w.Nest(tcaOptions, func() {
		// struct tc_u32_sel with one key that fits every packet.
		const terminal, keys = 1, 1
		selector := make([]byte, 32)
		selector[0], selector[2] = terminal, keys
		w.Bytes(u32Selector, selector)
		w.Nest(u32Action, func() {
			w.Nest(1, func() {
				w.Text(actionKind, "mirred")
				w.Nest(actionOptions, func() {
					// struct tc_mirred: index, capab, action, refcnt, bindcnt, eaction, ifindex.
					const stolen, egressRedirect = 4, 1
					var parms []byte
					for _, v := range []uint32{0, 0, stolen, 0, 0, egressRedirect, uint32(to)} {
						parms = native.AppendUint32(parms, v)
					}
					w.Bytes(mirredParms, parms)
				})
			})
		})
	})
	return wire.Message{Kind: unix.RTM_NEWTFILTER, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Body: w}
}
