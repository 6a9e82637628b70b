package nft

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/program"
)

// encoding is part of each rule's mark: raise it when the same text comes to
// mean other expressions, and rules of an older process are replaced.
const encoding = 1

// udataMark is a type of rule user data of ours beside nft's comment; nft
// skips types it does not know.
const udataMark userdata.Type = 0x70

// mark identifies a rule in the kernel by its text. Reading the expressions
// back would not do: the kernel returns other attributes than it was sent.
type mark [8]byte

func markOf(r program.Rule) mark {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", encoding, r))
	return mark(sum[:])
}

// markIn reads the mark of a rule in the kernel; a foreign rule has none.
func markIn(udata []byte) (m mark) {
	// Walked by hand: the library's reader trusts the lengths.
	for len(udata) >= 2 && len(udata) >= 2+int(udata[1]) {
		value := udata[2 : 2+int(udata[1])]
		if userdata.Type(udata[0]) == udataMark && len(value) == len(m) {
			return mark(value)
		}
		udata = udata[2+len(value):]
	}
	return m
}

func userDataOf(r program.Rule) []byte {
	var b []byte
	if r.Comment != "" {
		b = userdata.AppendString(b, userdata.TypeComment, r.Comment)
	}
	m := markOf(r)
	return userdata.Append(b, udataMark, m[:])
}

// encodeRule turns a rule into expressions as nft itself would write them,
// so that nft can print them.
func encodeRule(r program.Rule) ([]expr.Any, error) {
	var (
		out    []expr.Any
		family byte // of the packet, once an expression made sure of it
	)
	for _, s := range r.Statements {
		switch s := s.(type) {
		case program.InSet:
			field, ok := addrFields[s.Field]
			if !ok {
				return nil, fmt.Errorf("encode rule %q: unknown field %q", r, s.Field)
			}
			if family != field.family {
				family = field.family
				out = append(out,
					&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
					&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{field.family}})
			}
			out = append(out,
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: field.offset, Len: field.length},
				&expr.Lookup{SourceRegister: 1, SetName: s.Set, Invert: s.Not})
		case program.L4Proto:
			number, ok := l4Protos[s]
			if !ok {
				return nil, fmt.Errorf("encode rule %q: unknown protocol %q", r, string(s))
			}
			out = append(out, l4Is(number)...)
		default:
			exprs := encodeStatement(s)
			if exprs == nil {
				return nil, fmt.Errorf("encode rule %q: unknown statement %T", r, s)
			}
			out = append(out, exprs...)
		}
	}
	return out, nil
}

// encodeStatement knows the statements that depend on nothing before them.
func encodeStatement(s program.Statement) []expr.Any {
	switch s := s.(type) {
	case program.Masquerade:
		if s == (program.Masquerade{}) {
			return []expr.Any{&expr.Masq{}}
		}
		return []expr.Any{
			&expr.Immediate{Register: 1, Data: binary.BigEndian.AppendUint16(nil, s.Low)},
			&expr.Immediate{Register: 2, Data: binary.BigEndian.AppendUint16(nil, s.High)},
			&expr.Masq{FullyRandom: true, ToPorts: true, RegProtoMin: 1, RegProtoMax: 2},
		}
	case program.Goto:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: string(s)}}
	case program.UDPPort:
		return append(l4Is(unix.IPPROTO_UDP),
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, uint16(s))})
	case program.LinkGroup:
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFGROUP, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.NativeEndian.AppendUint32(nil, uint32(s))},
		}
	case program.NoWayBack:
		return []expr.Any{
			&expr.Fib{Register: 1, ResultOIF: true, FlagSADDR: true, FlagIIF: true, FlagPRESENT: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: make([]byte, 4)},
		}
	case program.CountAndDrop:
		return []expr.Any{
			&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: string(s)},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}
	case program.Drop:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	case program.Accept:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	case program.ICMP:
		return icmpIs(unix.IPPROTO_ICMP, icmpTypes[string(s)])
	case program.ICMPv6:
		return icmpIs(unix.IPPROTO_ICMPV6, icmpTypes[string(s)])
	case program.Notrack:
		return []expr.Any{&expr.Notrack{}}
	case program.Translated:
		return []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATUS, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
				Mask: binary.NativeEndian.AppendUint32(nil, 1<<5) /* IPS_DST_NAT */, Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
		}
	}
	return nil
}

func l4Is(protocol byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{protocol}},
	}
}

// icmpTypes are those that rules name (RFC 792, RFC 4861).
var icmpTypes = map[string]byte{"redirect": 5, "nd-router-advert": 134, "nd-redirect": 137}

func icmpIs(protocol, kind byte) []expr.Any {
	if kind == 0 {
		return nil // not in the table above
	}
	return append(l4Is(protocol),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{kind}})
}

// addrFields says where addresses are in IP headers (RFC 791, RFC 8200).
var addrFields = map[program.AddrField]struct {
	family         byte
	offset, length uint32
}{
	program.Saddr4: {unix.NFPROTO_IPV4, 12, 4},
	program.Daddr4: {unix.NFPROTO_IPV4, 16, 4},
	program.Saddr6: {unix.NFPROTO_IPV6, 8, 16},
	program.Daddr6: {unix.NFPROTO_IPV6, 24, 16},
}

var l4Protos = map[program.L4Proto]byte{"tcp": unix.IPPROTO_TCP, "udp": unix.IPPROTO_UDP}

var hooks = map[string]nftables.ChainHook{
	"prerouting":  unix.NF_INET_PRE_ROUTING,
	"input":       unix.NF_INET_LOCAL_IN,
	"forward":     unix.NF_INET_FORWARD,
	"output":      unix.NF_INET_LOCAL_OUT,
	"postrouting": unix.NF_INET_POST_ROUTING,
}

// declared is what the kernel says of a chain, in the program's words.
func declared(c *nftables.Chain) string {
	d := program.Chain{Name: c.Name, Type: string(c.Type)}
	if c.Hooknum != nil && c.Priority != nil {
		d.Priority = int(*c.Priority)
		for name, hook := range hooks {
			if hook == *c.Hooknum {
				d.Hook = name
			}
		}
	}
	return d.Declaration()
}

// setTypes are the sets' keys as nft calls them.
var setTypes = map[program.Family]nftables.SetDatatype{
	program.IPv4: nftables.TypeIPAddr,
	program.IPv6: nftables.TypeIP6Addr,
}

// declaredSet is what the kernel says of a set, in the program's words; a
// set we would never make matches no program.
func declaredSet(s *nftables.Set) string {
	for family, key := range setTypes {
		if s.KeyType.Name == key.Name && s.Interval && !s.IsMap && !s.Constant {
			return program.Set{Name: s.Name, Family: family}.Declaration()
		}
	}
	return ""
}

// encodeElements turns prefixes into the half-open intervals of the kernel.
func encodeElements(prefixes []netip.Prefix) []nftables.SetElement {
	var out []nftables.SetElement
	for _, p := range prefixes {
		out = append(out, nftables.SetElement{Key: p.Addr().AsSlice()})
		// The last interval of the address space has no end.
		if after := lastOf(p).Next(); after.IsValid() {
			out = append(out, nftables.SetElement{Key: after.AsSlice(), IntervalEnd: true})
		}
	}
	return out
}

// decodeElements reads intervals back. ok is false if one is no prefix, or
// has no counterpart: then the set is not what we wrote.
func decodeElements(elements []nftables.SetElement) (prefixes []netip.Prefix, ok bool) {
	ends := map[netip.Addr]bool{}
	for _, e := range elements {
		if addr, valid := netip.AddrFromSlice(e.Key); valid && e.IntervalEnd {
			ends[addr] = true
		}
	}
	seen := 0
	for _, e := range elements {
		start, valid := netip.AddrFromSlice(e.Key)
		if !valid {
			return nil, false
		}
		if e.IntervalEnd {
			continue
		}
		p, end := longest(start, ends)
		if !p.IsValid() {
			return nil, false
		}
		if end.IsValid() {
			seen++
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, seen == len(ends)
}

// longest finds the prefix from start to the nearest end.
func longest(start netip.Addr, ends map[netip.Addr]bool) (netip.Prefix, netip.Addr) {
	for bits := start.BitLen(); bits >= 0; bits-- {
		p := netip.PrefixFrom(start, bits)
		if p != p.Masked() {
			break
		}
		after := lastOf(p).Next()
		if !after.IsValid() || ends[after] {
			return p, after
		}
	}
	return netip.Prefix{}, netip.Addr{}
}

// lastOf is the last address of a prefix.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		host := min(max((i+1)*8-p.Bits(), 0), 8)
		b[i] |= byte(1<<host - 1)
	}
	last, _ := netip.AddrFromSlice(b)
	return last
}
