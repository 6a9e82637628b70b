package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/program/nft"
)

// encoding is part of each rule's mark: raise it when the same text comes to
// mean other expressions, and rules of an older process are replaced.
const encoding = 1

// Mark identifies a rule in the kernel by its text.
type Mark [8]byte

// MarkOf is the mark of a rule.
func MarkOf(r nft.Rule) Mark {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", encoding, r))
	return Mark(sum[:])
}

// Hooks are the kernel's numbers for hooks.
var Hooks = map[string]uint32{
	"prerouting": unix.NF_INET_PRE_ROUTING, "input": unix.NF_INET_LOCAL_IN,
	"forward": unix.NF_INET_FORWARD, "output": unix.NF_INET_LOCAL_OUT, "postrouting": unix.NF_INET_POST_ROUTING,
}

// AddChain makes a chain.
func (b *Batch) AddChain(c nft.Chain) {
	var w Attrs
	w.Text(unix.NFTA_CHAIN_TABLE, b.table)
	w.Text(unix.NFTA_CHAIN_NAME, c.Name)
	if c.Hook != "" {
		at := w.Nest(unix.NFTA_CHAIN_HOOK)
		w.U32(unix.NFTA_HOOK_HOOKNUM, Hooks[c.Hook])
		w.U32(unix.NFTA_HOOK_PRIORITY, uint32(int32(c.Priority)))
		w.Close(at)
		w.U32(unix.NFTA_CHAIN_POLICY, 1) // NF_ACCEPT
		w.Text(unix.NFTA_CHAIN_TYPE, c.Type)
	}
	b.Add(unix.NFT_MSG_NEWCHAIN, netlink.Create, w)
}

// AddRule appends a rule to a chain.
func (b *Batch) AddRule(chain string, r nft.Rule) error {
	var w Attrs
	w.Text(unix.NFTA_RULE_TABLE, b.table)
	w.Text(unix.NFTA_RULE_CHAIN, chain)
	at := w.Nest(unix.NFTA_RULE_EXPRESSIONS)
	e := encoder{Attrs: &w}
	for _, s := range r {
		if err := e.statement(s); err != nil {
			return fmt.Errorf("encode rule %q of chain %s: %w", r, chain, err)
		}
	}
	w.Close(at)
	m := MarkOf(r)
	w.Bytes(unix.NFTA_RULE_USERDATA, append([]byte{UserMark, byte(len(m))}, m[:]...))
	b.Add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, w)
	return nil
}

// UserMark is a type of user data of ours; nft skips what it does not know.
const UserMark = 0x70

// encoder writes expressions as nft itself would, so that it can print them.
type encoder struct {
	*Attrs
	family byte // of the packet, once an expression has made sure of it
}

// reg is the n-th 32-bit register.
func reg(n uint32) uint32 { return unix.NFT_REG32_00 + n }

// expr writes one expression.
func (e *encoder) expr(name string, body func()) {
	elem := e.Nest(unix.NFTA_LIST_ELEM)
	e.Text(unix.NFTA_EXPR_NAME, name)
	data := e.Nest(unix.NFTA_EXPR_DATA)
	body()
	e.Close(data)
	e.Close(elem)
}

// u32s writes pairs of attribute and number.
func (e *encoder) u32s(pairs ...uint32) {
	for i := 0; i < len(pairs); i += 2 {
		e.U32(uint16(pairs[i]), pairs[i+1])
	}
}

func (e *encoder) value(kind uint16, v []byte) {
	at := e.Nest(kind)
	e.Bytes(unix.NFTA_DATA_VALUE, v)
	e.Close(at)
}

func (e *encoder) meta(key, to uint32) {
	e.expr("meta", func() { e.u32s(unix.NFTA_META_DREG, to, unix.NFTA_META_KEY, key) })
}

func (e *encoder) setMeta(key, from uint32) {
	e.expr("meta", func() { e.u32s(unix.NFTA_META_KEY, key, unix.NFTA_META_SREG, from) })
}

func (e *encoder) compare(op, at uint32, v []byte) {
	e.expr("cmp", func() {
		e.u32s(unix.NFTA_CMP_SREG, at, unix.NFTA_CMP_OP, op)
		e.value(unix.NFTA_CMP_DATA, v)
	})
}

// bits keeps the bits in mask and then turns those in flip.
func (e *encoder) bits(at, mask, flip uint32) {
	e.expr("bitwise", func() {
		e.u32s(unix.NFTA_BITWISE_SREG, at, unix.NFTA_BITWISE_DREG, at, unix.NFTA_BITWISE_LEN, 4)
		e.value(unix.NFTA_BITWISE_MASK, host(mask))
		e.value(unix.NFTA_BITWISE_XOR, host(flip))
	})
}

// lookup finds a key; into is where data goes, or nil.
func (e *encoder) lookup(set string, key uint32, into *uint32, flags uint32) {
	e.expr("lookup", func() {
		e.Text(unix.NFTA_LOOKUP_SET, set)
		e.u32s(unix.NFTA_LOOKUP_SREG, key)
		if into != nil {
			e.u32s(unix.NFTA_LOOKUP_DREG, *into)
		}
		e.u32s(unix.NFTA_LOOKUP_FLAGS, flags)
	})
}

// key loads fields side by side into registers from the n-th on, and returns
// the next free one.
func (e *encoder) key(k nft.Key, n uint32) (uint32, error) {
	for _, f := range k {
		if err := e.need(f); err != nil {
			return n, err
		}
	}
	for _, f := range k {
		n += e.load(f, reg(n))
	}
	return n, nil
}

// need has rules look into IP headers of their own family only.
func (e *encoder) need(f nft.Field) error {
	field, ok := fields[f]
	if !ok && f.Modulus() == 0 {
		return fmt.Errorf("unknown field %q", f)
	}
	if field.family != 0 && field.family != e.family {
		e.family = field.family
		e.meta(unix.NFT_META_NFPROTO, reg(0))
		e.compare(unix.NFT_CMP_EQ, reg(0), []byte{field.family})
	}
	return nil
}

// load writes one field and returns how many registers it takes.
func (e *encoder) load(f nft.Field, to uint32) uint32 {
	if n := f.Modulus(); n > 0 {
		e.expr("numgen", func() {
			e.u32s(unix.NFTA_NG_DREG, to, unix.NFTA_NG_MODULUS, uint32(n), unix.NFTA_NG_TYPE, unix.NFT_NG_RANDOM, unix.NFTA_NG_OFFSET, 0)
		})
		return 1
	}
	field := fields[f]
	switch field.from {
	case fromMeta:
		e.meta(field.what, to)
	case fromCt:
		e.expr("ct", func() {
			e.u32s(unix.NFTA_CT_DREG, to, unix.NFTA_CT_KEY, field.what)
			e.Bytes(unix.NFTA_CT_DIRECTION, []byte{0}) // original
		})
	default:
		e.expr("payload", func() {
			e.u32s(unix.NFTA_PAYLOAD_DREG, to, unix.NFTA_PAYLOAD_BASE, field.what,
				unix.NFTA_PAYLOAD_OFFSET, field.offset, unix.NFTA_PAYLOAD_LEN, field.size)
		})
	}
	return (field.size + 3) / 4
}

const (
	fromPayload = iota
	fromMeta
	fromCt
)

// Keys of ct that golang.org/x/sys lacks (4.17).
const (
	ctSaddr4 = 19 + iota
	ctDaddr4
	ctSaddr6
	ctDaddr6
)

// fields says where to find what (RFC 791, RFC 8200; ports are at one place
// in TCP, UDP and SCTP).
var fields = map[nft.Field]struct {
	from               int
	what, offset, size uint32
	family             byte
}{
	nft.Saddr4:   {fromPayload, unix.NFT_PAYLOAD_NETWORK_HEADER, 12, 4, unix.NFPROTO_IPV4},
	nft.Daddr4:   {fromPayload, unix.NFT_PAYLOAD_NETWORK_HEADER, 16, 4, unix.NFPROTO_IPV4},
	nft.Saddr6:   {fromPayload, unix.NFT_PAYLOAD_NETWORK_HEADER, 8, 16, unix.NFPROTO_IPV6},
	nft.Daddr6:   {fromPayload, unix.NFT_PAYLOAD_NETWORK_HEADER, 24, 16, unix.NFPROTO_IPV6},
	nft.Sport:    {fromPayload, unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 2, 0},
	nft.Dport:    {fromPayload, unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, 0},
	nft.Proto:    {fromMeta, unix.NFT_META_L4PROTO, 0, 1, 0},
	nft.Class:    {fromMeta, unix.NFT_META_PRIORITY, 0, 4, 0},
	nft.CtSaddr4: {fromCt, ctSaddr4, 0, 4, 0},
	nft.CtDaddr4: {fromCt, ctDaddr4, 0, 4, 0},
	nft.CtSaddr6: {fromCt, ctSaddr6, 0, 16, 0},
	nft.CtDaddr6: {fromCt, ctDaddr6, 0, 16, 0},
	nft.CtDport:  {fromCt, unix.NFT_CT_PROTO_DST, 0, 2, 0},
}

// host is a number as it lies in a register.
func host(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

func be16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

// DropRules empties a chain.
func (b *Batch) DropRules(chain string) {
	var w Attrs
	w.Text(unix.NFTA_RULE_TABLE, b.table)
	w.Text(unix.NFTA_RULE_CHAIN, chain)
	b.Add(unix.NFT_MSG_DELRULE, 0, w)
}
