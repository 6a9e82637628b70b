package observe

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/facts"
)

// rate bounds how many packets a second are traced by one rule.
const rate = 1000

// load is where bytes of a packet are compared.
type load struct {
	base, offset uint32
	want         []byte
}

// conditions are what a packet has to be.
type conditions struct {
	family, proto byte
	loads         []load
}

// match is one direction of a flow.
func match(f facts.Flow, back bool) (c conditions) {
	c.family, c.proto = familyOf(f.To.Addr()), byte(f.Proto)
	at, size := uint32(12), uint32(4)
	if c.family == unix.NFPROTO_IPV6 {
		at, size = 8, 16
	}
	from, to, port := at, at+size, uint32(2)
	if back {
		from, to, port = to, from, 0
	}
	c.loads = append(c.loads, load{unix.NFT_PAYLOAD_NETWORK_HEADER, to, f.To.Addr().AsSlice()},
		load{unix.NFT_PAYLOAD_TRANSPORT_HEADER, port, be16(f.To.Port())})
	if f.Src.IsValid() {
		c.loads = append(c.loads, load{unix.NFT_PAYLOAD_NETWORK_HEADER, from, f.Src.AsSlice()})
	}
	return c
}

// Lengths of headers around an encapsulated packet: UDP, VXLAN, Ethernet.
const wrapping = 8 + 8 + 14

// around is the packet around it: what is inside is found behind the headers.
// Both families may carry it.
func around(f facts.Flow, back bool, overlay uint16) (c conditions) {
	inner := match(f, back)
	c.proto = unix.IPPROTO_UDP
	c.loads = append(c.loads, load{unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, be16(overlay)})
	header, proto := uint32(20), uint32(9)
	if inner.family == unix.NFPROTO_IPV6 {
		header, proto = 40, 6
	}
	c.loads = append(c.loads, load{unix.NFT_PAYLOAD_TRANSPORT_HEADER, wrapping + proto, []byte{inner.proto}})
	for _, l := range inner.loads {
		if l.base == unix.NFT_PAYLOAD_TRANSPORT_HEADER {
			l.offset += header
		}
		c.loads = append(c.loads, load{unix.NFT_PAYLOAD_TRANSPORT_HEADER, wrapping + l.offset, l.want})
	}
	return c
}

func familyOf(a netip.Addr) byte {
	if a.Is4() {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

const register = unix.NFT_REG32_00

// rule marks and counts what it matches.
func rule(table, chain string, c conditions) wire.Attrs {
	var w wire.Attrs
	w.Text(unix.NFTA_RULE_TABLE, table)
	w.Text(unix.NFTA_RULE_CHAIN, chain)
	all := w.Nest(unix.NFTA_RULE_EXPRESSIONS)
	expression := func(name string, body func()) {
		elem := w.Nest(unix.NFTA_LIST_ELEM)
		w.Text(unix.NFTA_EXPR_NAME, name)
		data := w.Nest(unix.NFTA_EXPR_DATA)
		body()
		w.Close(data)
		w.Close(elem)
	}
	equal := func(v []byte) {
		expression("cmp", func() {
			w.U32(unix.NFTA_CMP_SREG, register)
			w.U32(unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
			at := w.Nest(unix.NFTA_CMP_DATA)
			w.Bytes(unix.NFTA_DATA_VALUE, v)
			w.Close(at)
		})
	}
	meta := func(key uint32) {
		expression("meta", func() { w.U32(unix.NFTA_META_DREG, register); w.U32(unix.NFTA_META_KEY, key) })
	}
	if c.family != 0 {
		meta(unix.NFT_META_NFPROTO)
		equal([]byte{c.family})
	}
	meta(unix.NFT_META_L4PROTO)
	equal([]byte{c.proto})
	for _, l := range c.loads {
		expression("payload", func() {
			w.U32(unix.NFTA_PAYLOAD_DREG, register)
			w.U32(unix.NFTA_PAYLOAD_BASE, l.base)
			w.U32(unix.NFTA_PAYLOAD_OFFSET, l.offset)
			w.U32(unix.NFTA_PAYLOAD_LEN, uint32(len(l.want)))
		})
		equal(l.want)
	}
	expression("counter", func() { w.U64(unix.NFTA_COUNTER_BYTES, 0); w.U64(unix.NFTA_COUNTER_PACKETS, 0) })
	expression("limit", func() {
		w.U64(unix.NFTA_LIMIT_RATE, rate)
		w.U64(unix.NFTA_LIMIT_UNIT, 1)
		w.U32(unix.NFTA_LIMIT_BURST, rate)
	})
	expression("immediate", func() {
		w.U32(unix.NFTA_IMMEDIATE_DREG, register)
		at := w.Nest(unix.NFTA_IMMEDIATE_DATA)
		w.Bytes(unix.NFTA_DATA_VALUE, []byte{1})
		w.Close(at)
	})
	expression("meta", func() { w.U32(unix.NFTA_META_KEY, unix.NFT_META_NFTRACE); w.U32(unix.NFTA_META_SREG, register) })
	w.Close(all)
	return w
}

// packets is a rule's counter.
func packets(r *nftables.Rule) uint64 {
	for _, e := range r.Exprs {
		if c, ok := e.(*expr.Counter); ok {
			return c.Packets
		}
	}
	return 0
}
