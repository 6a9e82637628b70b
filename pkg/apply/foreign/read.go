package foreign

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/xt"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
)

// mostRules bounds what is read of other programs' rules.
const mostRules = 2000

// ErrTooMany is a ruleset of which only a part was read.
var ErrTooMany = fmt.Errorf("other programs have more than %d rules: the rest was not read", mostRules)

// Chains are the chains of other programs' tables that see packets of pods, and those they jump
// to, as far as their rules are understood. Tables whose name begins with own
// are left out; an empty name leaves out none.
func Chains(own string) (list []facts.Chain, err error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list other programs' chains: %w", err)
	}
	byName := map[string]*nftables.Chain{}
	var wanted, translating []*nftables.Chain
	for _, c := range chains {
		if t := c.Table.Name; own != "" && (t == own || strings.HasPrefix(t, own+"-")) || !seesPods(c.Table.Family) {
			continue
		}
		byName[place(c.Table.Family, c.Table.Name, c.Name)] = c
		switch {
		case c.Hooknum == nil:
		case c.Type == nftables.ChainTypeNAT:
			translating = append(translating, c) // there can be many: last
		default:
			wanted = append(wanted, c)
		}
	}
	wanted = append(wanted, translating...)
	devices, err := devicesOf(wanted)
	if err != nil {
		return nil, err
	}
	sets := &sets{conn: conn, left: mostElements, known: map[string][]span{}}
	rules := 0
	for i := 0; i < len(wanted); i++ { // it grows by what is jumped to
		c := wanted[i]
		known, err := conn.GetRules(c.Table, c)
		if err != nil {
			return list, fmt.Errorf("list rules of chain %s: %w", c.Name, err)
		}
		if rules += len(known); rules > mostRules {
			return list, ErrTooMany
		}
		f := chainOf(c)
		f.Devices = devices[place(c.Table.Family, c.Table.Name, c.Name)]
		for _, r := range known {
			f.Rules = append(f.Rules, ruleOf(r, sets))
			if to := byName[place(c.Table.Family, c.Table.Name, f.Rules[len(f.Rules)-1].To)]; to != nil && !slices.Contains(wanted, to) {
				wanted = append(wanted, to)
			}
		}
		list = append(list, f)
	}
	return list, nil
}

func seesPods(f nftables.TableFamily) bool {
	return f == nftables.TableFamilyIPv4 || f == nftables.TableFamilyIPv6 || f == nftables.TableFamilyINet || f == nftables.TableFamilyNetdev
}

// place names a chain.
func place(f nftables.TableFamily, table, chain string) string {
	return fmt.Sprint(f, " ", table, " ", chain)
}

var hookNames = [...]string{"prerouting", "input", "forward", "output", "postrouting", facts.Ingress}

func hookName(c *nftables.Chain) string {
	n := int(*c.Hooknum)
	switch {
	case c.Table.Family == nftables.TableFamilyNetdev && n < 2:
		return [...]string{facts.Ingress, facts.Egress}[n]
	case c.Table.Family != nftables.TableFamilyNetdev && n < len(hookNames):
		return hookNames[n]
	}
	return "other"
}

func chainOf(c *nftables.Chain) facts.Chain {
	f := facts.Chain{Family: familyName(c.Table.Family), Table: c.Table.Name, Name: c.Name, Drops: drops(c)}
	if c.Hooknum != nil {
		f.Hook = hookName(c)
	}
	if c.Priority != nil {
		f.Priority = int(*c.Priority)
	}
	return f
}

// reading is a rule that is being read: what each register holds.
type reading struct {
	facts.Rule
	family nftables.TableFamily
	what   map[uint32]string
	mask   map[uint32][]byte
	value  map[uint32]facts.MarkWrite // a number, or what becomes of the mark
	filled uint32                     // the register that was given a number last
	table  *nftables.Table
	sets   *sets
}

func ruleOf(r *nftables.Rule, sets *sets) facts.Rule {
	w := reading{Rule: facts.Rule{Handle: r.Handle}, table: r.Table, sets: sets, family: r.Table.Family, what: map[uint32]string{}, mask: map[uint32][]byte{}, value: map[uint32]facts.MarkWrite{}}
	switch r.Table.Family {
	case nftables.TableFamilyIPv4:
		w.Family = 4
	case nftables.TableFamilyIPv6:
		w.Family = 6
	}
	for _, e := range r.Exprs {
		w.read(e)
	}
	return w.Rule
}

func (w *reading) obscure(what string) { w.Obscure = append(w.Obscure, what) }

func (w *reading) read(e expr.Any) {
	switch e := e.(type) {
	case *expr.Meta:
		w.meta(e)
	case *expr.Payload:
		if e.OperationType == expr.PayloadLoad {
			w.what[e.DestRegister], w.mask[e.DestRegister] = w.field(e), nil
		}
	case *expr.Ct:
		w.track(e)
	case *expr.Bitwise:
		w.what[e.DestRegister], w.mask[e.DestRegister] = w.what[e.SourceRegister], e.Mask
		w.bitwise(e)
	case *expr.Immediate:
		if delete(w.value, e.Register); len(e.Data) == 2 || len(e.Data) == 4 {
			w.value[e.Register], w.filled = facts.MarkWrite{Flip: native(e.Data)}, e.Register
		}
	case *expr.Cmp:
		w.compare(e)
	case *expr.Range:
		w.between(e)
	case *expr.Match:
		w.match(e)
	case *expr.Verdict:
		w.Verdict, w.To = verdicts[e.Kind], e.Chain
	case *expr.Reject:
		w.Verdict = "reject"
	case *expr.NAT:
		if e.Type == expr.NATTypeDestNAT {
			w.Verdict = "dnat"
		}
	case *expr.Redir:
		w.Verdict = "dnat"
	case *expr.Notrack:
		w.Verdict = "notrack"
	case *expr.Target:
		w.Verdict = map[string]string{"REJECT": "reject", "DNAT": "dnat", "REDIRECT": "dnat", "NOTRACK": "notrack"}[e.Name]
	case *expr.Lookup:
		w.lookup(e)
	case *expr.Counter, *expr.Log, *expr.Masq, *expr.Objref:
	default:
		w.obscure(strings.TrimPrefix(fmt.Sprintf("%T", e), "*expr."))
	}
}

var metas = map[expr.MetaKey]string{
	expr.MetaKeyIIFNAME: "iifname", expr.MetaKeyOIFNAME: "oifname", expr.MetaKeyL4PROTO: "protocol", expr.MetaKeyNFPROTO: "family",
	expr.MetaKeyPROTOCOL: "ether type",
}

var verdicts = map[expr.VerdictKind]string{
	expr.VerdictAccept: "accept", expr.VerdictDrop: "drop", expr.VerdictJump: "jump", expr.VerdictGoto: "goto", expr.VerdictReturn: "return",
	expr.VerdictQueue: "queue",
}

// field names what a payload expression loads.
func (w *reading) field(p *expr.Payload) string {
	type place struct {
		base        expr.PayloadBase
		offset, len uint32
	}
	switch (place{p.Base, p.Offset, p.Len}) {
	case place{expr.PayloadBaseTransportHeader, 0, 2}:
		return "sport"
	case place{expr.PayloadBaseTransportHeader, 2, 2}:
		return "dport"
	case place{expr.PayloadBaseNetworkHeader, 9, 1}:
		return "protocol"
	}
	if p.Base != expr.PayloadBaseNetworkHeader {
		return ""
	}
	// iptables loads only the bytes of an address that its prefix covers.
	switch {
	case w.isIPv4() && p.Offset == 12 && p.Len <= 4:
		return "saddr4"
	case w.isIPv4() && p.Offset == 16 && p.Len <= 4:
		return "daddr4"
	case !w.isIPv4() && p.Offset == 8 && p.Len <= 16:
		return "saddr6"
	case !w.isIPv4() && p.Offset == 24 && p.Len <= 16:
		return "daddr6"
	}
	return ""
}

func (w *reading) isIPv4() bool { return w.family == nftables.TableFamilyIPv4 || w.Family == 4 }

func (w *reading) compare(e *expr.Cmp) {
	what, not := w.what[e.Register], e.Op == expr.CmpOpNeq
	if e.Op != expr.CmpOpEq && !not {
		w.limit(what, e)
		return
	}
	switch what {
	case "iifname", "oifname":
		name := strings.TrimRight(string(e.Data), "\x00")
		m := &facts.NameMatch{Not: not, Name: name, Prefix: len(name) == len(e.Data)}
		if what == "iifname" {
			w.In = m
		} else {
			w.Out = m
		}
	case "saddr4", "daddr4", "saddr6", "daddr6":
		w.address(what, e.Data, w.mask[e.Register], not)
	case "sport", "dport", "protocol":
		w.number(what, number(e.Data), number(e.Data), not)
	case "family":
		switch {
		case not || len(e.Data) == 0:
			w.obscure("family")
		case e.Data[0] == unix.NFPROTO_IPV4:
			w.Family = 4
		case e.Data[0] == unix.NFPROTO_IPV6:
			w.Family = 6
		}
	case "ether type":
		switch of := number(e.Data); {
		case of == unix.ETH_P_IP && !not:
			w.Family = 4
		case of == unix.ETH_P_IPV6 && !not:
			w.Family = 6
		default:
			w.obscure("ether type")
		}
	case "ct state":
		// A bit of the mask that is set; a new connection has one of them.
		mask := w.mask[e.Register]
		isNew := len(mask) == 4 && binary.NativeEndian.Uint32(mask)&expr.CtStateBitNEW != 0
		w.NotNew = w.NotNew || !isNew == not
	default:
		w.obscure("an unknown field")
	}
}

// limit reads one end of a range, which is two comparisons.
func (w *reading) limit(what string, e *expr.Cmp) {
	m := map[string]**facts.NumMatch{"sport": &w.Sport, "dport": &w.Dport}[what]
	if m == nil || e.Op != expr.CmpOpGte && e.Op != expr.CmpOpLte {
		w.obscure(what + " compared")
		return
	}
	if *m == nil {
		*m = &facts.NumMatch{High: 65535}
	}
	if e.Op == expr.CmpOpGte {
		(*m).Low = number(e.Data)
	} else {
		(*m).High = number(e.Data)
	}
}

func (w *reading) between(e *expr.Range) {
	switch what := w.what[e.Register]; what {
	case "sport", "dport":
		w.number(what, number(e.FromData), number(e.ToData), e.Op == expr.CmpOpNeq)
	default:
		w.obscure(what + " in a range")
	}
}

func number(b []byte) uint16 {
	switch len(b) {
	case 1:
		return uint16(b[0])
	case 2:
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (w *reading) number(what string, low, high uint16, not bool) {
	m := &facts.NumMatch{Not: not, Low: low, High: high}
	switch what {
	case "sport":
		w.Sport = m
	case "dport":
		w.Dport = m
	default:
		w.Proto = m
	}
}

// address reads a prefix: from a mask, or from how many bytes are compared.
func (w *reading) address(what string, data, mask []byte, not bool) {
	size := 4
	if strings.HasSuffix(what, "6") {
		size = 16
	}
	bits := 8 * len(data)
	for i, b := range mask {
		if b != 0xff {
			bits = 8 * i
			for ; b&0x80 != 0; b <<= 1 {
				bits++
			}
			break
		}
	}
	a, _ := netip.AddrFromSlice(append(slices.Clone(data), make([]byte, max(size-len(data), 0))...))
	p := netip.PrefixFrom(a, bits).Masked()
	if !p.IsValid() {
		w.obscure("an address")
		return
	}
	m := &facts.AddrMatch{Not: not, Prefix: p}
	if what[0] == 's' {
		w.Src = m
	} else {
		w.Dst = m
	}
	w.Family = map[bool]int{true: 4, false: 6}[a.Is4()]
}

// match reads what iptables matches by modules of its own.
func (w *reading) match(e *expr.Match) {
	ports := func(p service.Protocol, src, dst [2]uint16, notSrc, notDst bool) {
		w.number("protocol", uint16(p), uint16(p), false)
		if src != [2]uint16{0, 65535} {
			w.number("sport", src[0], src[1], notSrc)
		}
		if dst != [2]uint16{0, 65535} {
			w.number("dport", dst[0], dst[1], notDst)
		}
	}
	states := func(flags, inverted uint16, states uint16) {
		const isNew = 8 // XT_CONNTRACK_STATE_BIT(IP_CT_NEW)
		if flags&^uint16(xt.ConntrackState|xt.ConntrackStateAlias) != 0 {
			w.obscure("conntrack")
			return
		}
		w.NotNew = w.NotNew || (states&isNew != 0) == (inverted&uint16(xt.ConntrackState) != 0)
	}
	switch info := e.Info.(type) {
	case *xt.Comment:
	case *xt.Tcp:
		if info.FlagsMask != 0 || info.Option != 0 {
			w.obscure("tcp flags")
		}
		ports(service.TCP, info.SrcPorts, info.DstPorts, info.InvFlags&xt.TcpInvSrcPorts != 0, info.InvFlags&xt.TcpInvDestPorts != 0)
	case *xt.Udp:
		ports(service.UDP, info.SrcPorts, info.DstPorts, info.InvFlags&xt.UdpInvSrcPorts != 0, info.InvFlags&xt.UdpInvDestPorts != 0)
	case *xt.ConntrackMtinfo1:
		states(info.MatchFlags, info.InvertFlags, uint16(info.StateMask))
	case *xt.ConntrackMtinfo2:
		states(info.MatchFlags, info.InvertFlags, info.StateMask)
	case *xt.ConntrackMtinfo3:
		states(info.MatchFlags, info.InvertFlags, info.StateMask)
	default:
		w.obscure(e.Name)
	}
}
