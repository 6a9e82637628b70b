package wire

import (
	"fmt"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/program/nft"
)

// statement writes the expressions of one statement.
func (e *encoder) statement(s nft.Statement) error {
	switch s := s.(type) {
	case nft.In:
		return e.in(s)
	case nft.Classify:
		if _, err := e.key(s.Key, 0); err != nil {
			return err
		}
		to := reg(0)
		e.lookup(s.Map, reg(0), &to, 0)
		e.setMeta(unix.NFT_META_PRIORITY, reg(0))
	case nft.Dispatch:
		e.meta(unix.NFT_META_PRIORITY, reg(0))
		if s.Mask != 0 {
			e.bits(reg(0), s.Mask, 0)
		}
		verdict := uint32(unix.NFT_REG_VERDICT)
		e.lookup(s.Map, reg(0), &verdict, 0)
	case nft.ClassIs:
		e.meta(unix.NFT_META_PRIORITY, reg(0))
		if s.Mask != 0 {
			e.bits(reg(0), s.Mask, 0)
		}
		e.compare(operator(s.Not), reg(0), host(s.Value))
	case nft.KeepClass:
		e.meta(unix.NFT_META_PRIORITY, reg(0))
		e.bits(reg(0), s.Mask, 0)
		e.setMeta(unix.NFT_META_PRIORITY, reg(0))
	case nft.SetClass:
		e.immediate(reg(0), host(s.Value))
		e.setMeta(unix.NFT_META_PRIORITY, reg(0))
	case nft.ForgetClass:
		e.immediate(reg(0), host(0))
		e.setMeta(unix.NFT_META_PRIORITY, reg(0))
	case nft.MarkHas:
		e.meta(unix.NFT_META_MARK, reg(0))
		e.bits(reg(0), s.Bits, 0)
		e.compare(unix.NFT_CMP_NEQ, reg(0), host(0))
	case nft.MarkSet:
		e.mark(^s.Bits, s.Bits)
	case nft.MarkClear:
		e.mark(^s.Bits, 0)
	case nft.InGroup:
		e.meta(unix.NFT_META_IIFGROUP, reg(0))
		e.compare(operator(s.Not), reg(0), host(s.Group))
	case nft.OutGroup:
		e.meta(unix.NFT_META_OIFGROUP, reg(0))
		e.compare(unix.NFT_CMP_EQ, reg(0), host(s.Group))
	case nft.OutLoopback:
		e.meta(unix.NFT_META_OIF, reg(0))
		e.compare(unix.NFT_CMP_EQ, reg(0), host(1)) // lo is always the first
	case nft.Translated:
		e.expr("ct", func() { e.u32s(unix.NFTA_CT_DREG, reg(0), unix.NFTA_CT_KEY, unix.NFT_CT_STATUS) })
		e.bits(reg(0), ipsDstNAT, 0)
		e.compare(unix.NFT_CMP_NEQ, reg(0), host(0))
	case nft.Related:
		e.state(stateRelated)
	case nft.New:
		e.state(stateNew)
	case nft.Established:
		e.state(stateEstablished)
	case nft.Reply:
		e.expr("ct", func() { e.u32s(unix.NFTA_CT_DREG, reg(0), unix.NFTA_CT_KEY, unix.NFT_CT_DIRECTION) })
		e.compare(unix.NFT_CMP_EQ, reg(0), []byte{1})
	case nft.Labelled:
		e.expr("ct", func() { e.u32s(unix.NFTA_CT_DREG, reg(0), unix.NFTA_CT_KEY, unix.NFT_CT_LABELS) })
		e.compare(unix.NFT_CMP_EQ, reg(0), s.Label[:])
	case nft.SetLabel:
		e.immediate(reg(0), s.Label[:])
		e.expr("ct", func() { e.u32s(unix.NFTA_CT_SREG, reg(0), unix.NFTA_CT_KEY, unix.NFT_CT_LABELS) })
	case nft.DNAT:
		return e.dnat(s)
	case nft.Learn:
		return e.learn(s)
	case nft.Masquerade:
		e.masquerade(s)
	case nft.Count:
		e.expr("counter", func() { e.U64(unix.NFTA_COUNTER_BYTES, 0); e.U64(unix.NFTA_COUNTER_PACKETS, 0) })
	case nft.Limit:
		e.expr("limit", func() {
			e.U64(unix.NFTA_LIMIT_RATE, uint64(s.Rate))
			e.U64(unix.NFTA_LIMIT_UNIT, 1) // in seconds
			e.u32s(unix.NFTA_LIMIT_BURST, s.Rate, unix.NFTA_LIMIT_TYPE, unix.NFT_LIMIT_PKTS, unix.NFTA_LIMIT_FLAGS, 0)
		})
	case nft.Log:
		e.expr("log", func() {
			e.Bytes(unix.NFTA_LOG_GROUP, be16(s.Group))
			e.Text(unix.NFTA_LOG_PREFIX, s.Prefix)
			e.u32s(unix.NFTA_LOG_SNAPLEN, s.Length)
		})
	case nft.IsTCP:
		e.meta(unix.NFT_META_L4PROTO, reg(0))
		e.compare(unix.NFT_CMP_EQ, reg(0), []byte{unix.IPPROTO_TCP})
	case nft.Verdict:
		return e.verdict(s)
	default:
		return fmt.Errorf("unknown statement %T", s)
	}
	return nil
}

// NF_CT_STATE_BIT of IP_CT_RELATED, in either direction, and of IP_CT_NEW
// (linux/netfilter/nf_conntrack_common.h).
const stateEstablished, stateRelated, stateNew = 0x2, 0x4, 0x8

// state matches connections in one of some states.
func (e *encoder) state(bits uint32) {
	e.expr("ct", func() { e.u32s(unix.NFTA_CT_DREG, reg(0), unix.NFTA_CT_KEY, unix.NFT_CT_STATE) })
	e.bits(reg(0), bits, 0)
	e.compare(unix.NFT_CMP_NEQ, reg(0), host(0))
}

// ipsDstNAT is IPS_DST_NAT of linux/netfilter/nf_conntrack_common.h.
const ipsDstNAT = 0x20

func operator(not bool) uint32 {
	if not {
		return unix.NFT_CMP_NEQ
	}
	return unix.NFT_CMP_EQ
}

func (e *encoder) in(s nft.In) error {
	if _, err := e.key(s.Key, 0); err != nil {
		return err
	}
	flags := uint32(0)
	if s.Not {
		flags = unix.NFT_LOOKUP_F_INV
	}
	e.lookup(s.Set, reg(0), nil, flags)
	return nil
}

func (e *encoder) mark(keep, set uint32) {
	e.meta(unix.NFT_META_MARK, reg(0))
	e.bits(reg(0), keep, set)
	e.setMeta(unix.NFT_META_MARK, reg(0))
}

func (e *encoder) immediate(to uint32, v []byte) {
	e.expr("immediate", func() {
		e.u32s(unix.NFTA_IMMEDIATE_DREG, to)
		e.value(unix.NFTA_IMMEDIATE_DATA, v)
	})
}

func (e *encoder) dnat(s nft.DNAT) error {
	if _, err := e.key(s.Key, 0); err != nil {
		return err
	}
	to, family, port := reg(0), uint32(unix.NFPROTO_IPV4), reg(1)
	if s.IPv6 {
		family, port = unix.NFPROTO_IPV6, reg(4)
	}
	e.lookup(s.Map, reg(0), &to, 0)
	e.expr("nat", func() {
		e.u32s(unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT, unix.NFTA_NAT_FAMILY, family,
			unix.NFTA_NAT_REG_ADDR_MIN, to, unix.NFTA_NAT_REG_ADDR_MAX, to,
			unix.NFTA_NAT_REG_PROTO_MIN, port, unix.NFTA_NAT_REG_PROTO_MAX, port)
	})
	return nil
}

func (e *encoder) learn(s nft.Learn) error {
	// The data's fields first: they make sure of the family.
	for _, f := range s.Data {
		if err := e.need(f); err != nil {
			return err
		}
	}
	next, err := e.key(s.Key, 0)
	if err != nil {
		return err
	}
	if _, err := e.key(s.Data, next); err != nil {
		return err
	}
	e.expr("dynset", func() {
		e.Text(unix.NFTA_DYNSET_SET_NAME, s.Map)
		e.u32s(unix.NFTA_DYNSET_OP, unix.NFT_DYNSET_OP_UPDATE, unix.NFTA_DYNSET_SREG_KEY, reg(0))
		if s.Data != nil {
			e.u32s(unix.NFTA_DYNSET_SREG_DATA, reg(next))
		}
		e.U64(unix.NFTA_DYNSET_TIMEOUT, uint64(s.Timeout.Milliseconds()))
	})
	return nil
}

func (e *encoder) masquerade(s nft.Masquerade) {
	e.immediate(reg(0), be16(s.Low))
	e.immediate(reg(1), be16(s.High))
	e.expr("masq", func() {
		e.u32s(unix.NFTA_MASQ_FLAGS, unix.NF_NAT_RANGE_PROTO_SPECIFIED|unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY,
			unix.NFTA_MASQ_REG_PROTO_MIN, reg(0), unix.NFTA_MASQ_REG_PROTO_MAX, reg(1))
	})
}

// Verdict codes of linux/netfilter/nf_tables.h.
var verdictCodes = map[string]int32{"drop": 0, "jump": unix.NFT_JUMP, "goto": unix.NFT_GOTO, "return": unix.NFT_RETURN}

func (e *encoder) verdict(s nft.Verdict) error {
	switch s {
	case nft.Reset:
		e.expr("reject", func() {
			e.u32s(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_TCP_RST)
			e.Bytes(unix.NFTA_REJECT_ICMP_CODE, []byte{0})
		})
		return nil
	case nft.Reject:
		// Port unreachable of either family.
		e.expr("reject", func() {
			e.u32s(unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_ICMPX_UNREACH)
			e.Bytes(unix.NFTA_REJECT_ICMP_CODE, []byte{unix.NFT_REJECT_ICMPX_PORT_UNREACH})
		})
		return nil
	}
	code, ok := verdictCodes[s.Kind]
	if !ok {
		return fmt.Errorf("unknown verdict %q", s.Kind)
	}
	e.expr("immediate", func() {
		e.u32s(unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
		at := e.Nest(unix.NFTA_IMMEDIATE_DATA)
		e.Goes(code, s.Chain)
		e.Close(at)
	})
	return nil
}

// Goes writes a verdict.
func (w *Attrs) Goes(code int32, chain string) {
	at := w.Nest(unix.NFTA_DATA_VERDICT)
	w.U32(unix.NFTA_VERDICT_CODE, uint32(code))
	if chain != "" {
		w.Text(unix.NFTA_VERDICT_CHAIN, chain)
	}
	w.Close(at)
}
