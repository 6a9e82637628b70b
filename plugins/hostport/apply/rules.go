package apply

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/wire"
)

// chain is a base chain of type nat, or without a hook one to go to.
type chain struct {
	name     string
	hook     uint32
	priority int32
	base     bool
	rules    []rule
}

const (
	// before Services, which begin at -100: a host port is the node's own.
	beforeServices = -101
	sourceNAT      = 100
)

// chains are the whole static part, in the order in which they can be made.
//
// Only packets to an address of this node itself are looked up (fib daddr
// type local): what passes through it is none of our business
// (CVE-2025-67499). Nothing that comes from or goes to 127.0.0.0/8 over the
// wire is, either, and what a process sends from there stays there: with
// route_localnet it could leave, and others could come in (CVE-2020-8558).
func chains() []chain {
	return []chain{
		{name: "ports", rules: []rule{
			dnat(unix.NFPROTO_IPV4, "hosts4", destination4), dnat(unix.NFPROTO_IPV6, "hosts6", destination6),
			dnat(unix.NFPROTO_IPV4, "any4", nil), dnat(unix.NFPROTO_IPV6, "any6", nil),
		}},
		{name: "prerouting", base: true, hook: unix.NF_INET_PRE_ROUTING, priority: beforeServices, rules: []rule{
			is(unix.NFPROTO_IPV4, payload(16, 1), []byte{loopback4}).then(returns),
			is(unix.NFPROTO_IPV6, payload(24, 16), loopback6).then(returns),
			local.then(goes("ports")),
		}},
		{name: "output", base: true, hook: unix.NF_INET_LOCAL_OUT, priority: beforeServices, rules: []rule{
			is(unix.NFPROTO_IPV4, payload(12, 1), []byte{loopback4}).then(returns),
			is(unix.NFPROTO_IPV6, payload(8, 16), loopback6).then(returns),
			local.then(goes("ports")),
		}},
		// A pod that reaches itself by way of the node must not see itself as
		// its peer: it would answer past the node.
		{name: "postrouting", base: true, hook: unix.NF_INET_POST_ROUTING, priority: sourceNAT, rules: []rule{
			hairpin(unix.NFPROTO_IPV4, "hairpin4", 12, 4),
			hairpin(unix.NFPROTO_IPV6, "hairpin6", 8, 16),
		}},
	}
}

// rule writes the expressions of a rule, as nft itself would, so that nft can
// print them.
type rule func(*wire.Attrs)

func (r rule) then(next rule) rule { return func(w *wire.Attrs) { r(w); next(w) } }

// reg is the n-th register of four bytes.
func reg(n uint32) uint32 { return unix.NFT_REG32_00 + n }

func expression(w *wire.Attrs, name string, body func()) {
	w.Nest(unix.NFTA_LIST_ELEM, func() {
		w.Text(unix.NFTA_EXPR_NAME, name)
		w.Nest(unix.NFTA_EXPR_DATA, body)
	})
}

// numbers writes pairs of attribute and number.
func numbers(w *wire.Attrs, pairs ...uint32) {
	for i := 0; i < len(pairs); i += 2 {
		w.Net(uint16(pairs[i]), pairs[i+1])
	}
}

// load puts a field into registers from the n-th on.
type load func(w *wire.Attrs, n uint32)

// payload is a field of the IP header, by its place (RFC 791, RFC 8200).
func payload(offset, size uint32) load { return from(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, size) }

func from(header, offset, size uint32) load {
	return func(w *wire.Attrs, n uint32) {
		expression(w, "payload", func() {
			numbers(w, unix.NFTA_PAYLOAD_DREG, reg(n), unix.NFTA_PAYLOAD_BASE, header,
				unix.NFTA_PAYLOAD_OFFSET, offset, unix.NFTA_PAYLOAD_LEN, size)
		})
	}
}

var (
	destination4 = payload(16, 4)
	destination6 = payload(24, 16)
	// port is at one place in TCP, UDP and SCTP.
	port = from(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2)
)

func meta(key uint32) load {
	return func(w *wire.Attrs, n uint32) {
		expression(w, "meta", func() { numbers(w, unix.NFTA_META_DREG, reg(n), unix.NFTA_META_KEY, key) })
	}
}

func compare(w *wire.Attrs, v []byte) {
	expression(w, "cmp", func() {
		numbers(w, unix.NFTA_CMP_SREG, reg(0), unix.NFTA_CMP_OP, unix.NFT_CMP_EQ)
		value(w, unix.NFTA_CMP_DATA, v)
	})
}

func family(f uint8) rule {
	return func(w *wire.Attrs) {
		meta(unix.NFT_META_NFPROTO)(w, 0)
		compare(w, []byte{f})
	}
}

func is(f uint8, field load, v []byte) rule {
	return family(f).then(func(w *wire.Attrs) {
		field(w, 0)
		compare(w, v)
	})
}

// local matches packets to an address of this node.
var local rule = func(w *wire.Attrs) {
	expression(w, "fib", func() {
		numbers(w, unix.NFTA_FIB_DREG, reg(0), unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE, unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_DADDR)
	})
	compare(w, binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL))
}

func lookup(w *wire.Attrs, name string, pairs ...uint32) {
	expression(w, "lookup", func() {
		w.Text(unix.NFTA_LOOKUP_SET, name)
		numbers(w, unix.NFTA_LOOKUP_SREG, reg(0))
		numbers(w, pairs...)
	})
}

// dnat sends a packet to what the map holds for its destination, or on to the
// next rule. Without an address the key is protocol and port.
func dnat(f uint8, name string, address load) rule {
	size := uint32(1) // of an address, in registers
	if f == unix.NFPROTO_IPV6 {
		size = 4
	}
	return family(f).then(func(w *wire.Attrs) {
		n := uint32(0)
		if address != nil {
			address(w, 0)
			n = size
		}
		meta(unix.NFT_META_L4PROTO)(w, n)
		port(w, n+1)
		lookup(w, name, unix.NFTA_LOOKUP_DREG, reg(0))
		expression(w, "nat", func() {
			numbers(w, unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT, unix.NFTA_NAT_FAMILY, uint32(f),
				unix.NFTA_NAT_REG_ADDR_MIN, reg(0), unix.NFTA_NAT_REG_ADDR_MAX, reg(0),
				unix.NFTA_NAT_REG_PROTO_MIN, reg(size), unix.NFTA_NAT_REG_PROTO_MAX, reg(size))
		})
	})
}

// hairpin gives a packet from a pod to itself the node's address.
func hairpin(f uint8, name string, source, size uint32) rule {
	return family(f).then(func(w *wire.Attrs) {
		payload(source, size)(w, 0)
		payload(source+size, size)(w, size/4)
		lookup(w, name)
		expression(w, "masq", func() {})
	})
}

var returns rule = func(w *wire.Attrs) { verdict(w, unix.NFT_RETURN, "") }

func goes(to string) rule { return func(w *wire.Attrs) { verdict(w, unix.NFT_GOTO, to) } }

func verdict(w *wire.Attrs, code int32, to string) {
	expression(w, "immediate", func() {
		numbers(w, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		w.Nest(unix.NFTA_IMMEDIATE_DATA, func() {
			w.Nest(unix.NFTA_DATA_VERDICT, func() {
				w.Net(unix.NFTA_VERDICT_CODE, uint32(code))
				if to != "" {
					w.Text(unix.NFTA_VERDICT_CHAIN, to)
				}
			})
		})
	})
}

// chain writes a chain without its rules.
func (b *batch) chain(c chain) {
	w := named("")
	w.Text(unix.NFTA_CHAIN_NAME, c.name)
	if c.base {
		w.Nest(unix.NFTA_CHAIN_HOOK, func() {
			numbers(&w, unix.NFTA_HOOK_HOOKNUM, c.hook, unix.NFTA_HOOK_PRIORITY, uint32(c.priority))
		})
		w.Net(unix.NFTA_CHAIN_POLICY, 1) // NF_ACCEPT
		w.Text(unix.NFTA_CHAIN_TYPE, "nat")
	}
	b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, w)
}

// rules replaces a chain's rules.
func (b *batch) rules(c chain) {
	b.add(unix.NFT_MSG_DELRULE, 0, named(c.name))
	for _, r := range c.rules {
		w := named(c.name)
		w.Nest(unix.NFTA_RULE_EXPRESSIONS, func() { r(&w) })
		b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND, w)
	}
}
