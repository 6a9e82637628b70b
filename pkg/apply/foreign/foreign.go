// Package foreign keeps another program's firewall from cutting pods off.
// Docker and ufw set the policy of iptables' chain FORWARD to DROP, and an
// accept in a table of ours cannot overrule that: every table has its say. So
// the chain itself gets accept rules for what pods send and receive, at its
// end, where only the policy would follow: rules that somebody wrote to drop
// or reject something still do. Inputs are ranges and a device; outputs are
// the rules, with a comment that says whose they are, and the names of chains
// that drop by policy and cannot be helped so. It refuses to touch anything
// but its own rules in table filter of iptables-nft.
package foreign

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/google/nftables/xt"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/diff"
)

// Comment marks our rules. It is what iptables -S and nft show.
const Comment = "poplin: pods, despite the policy"

// Want is what may pass. The zero value takes our rules away.
type Want struct {
	// Ranges are the pods'.
	Ranges []netip.Prefix
	// Link is a device that only pods' packets use.
	Link string
}

// Firewall is other programs' rules, as far as they concern us. It belongs to
// the network namespace of the thread that calls it.
type Firewall struct{}

// Set makes the chains FORWARD of iptables-nft let pass what want says, where
// their policy is to drop.
func (Firewall) Set(want Want) (res diff.Result, err error) {
	conn, err := nftables.New()
	if err != nil {
		return res, fmt.Errorf("open nftables socket: %w", err)
	}
	var errs []error
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		c, err := conn.ListChain(&nftables.Table{Name: "filter", Family: family}, "FORWARD")
		// The library keeps an error's text only.
		if err != nil && strings.Contains(err.Error(), unix.ENOENT.Error()) {
			continue
		}
		var changed diff.Result
		if err == nil {
			var rules [][]expr.Any
			if drops(c) {
				rules = want.rules(family == nftables.TableFamilyIPv4)
			}
			changed, err = keep(conn, c, rules)
		}
		if err != nil {
			res.Failed++
			errs = append(errs, fmt.Errorf("keep pods' rules in chain FORWARD of table %s filter: %w", familyName(family), err))
		}
		res = res.Plus(changed)
	}
	return res, errors.Join(errs...)
}

// Blocking are the chains, of whatever program, that see forwarded packets,
// drop them by policy and hold no rule of ours.
func (Firewall) Blocking() (names []string, err error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	chains, err := conn.ListChains()
	if err != nil {
		return nil, fmt.Errorf("list other programs' chains: %w", err)
	}
	for _, c := range chains {
		if c.Hooknum == nil || *c.Hooknum != *nftables.ChainHookForward || !drops(c) {
			continue
		}
		rules, err := conn.GetRules(c.Table, c)
		if err != nil {
			return nil, fmt.Errorf("list rules of chain %s: %w", c.Name, err)
		}
		if !slices.ContainsFunc(rules, owned) {
			names = append(names, fmt.Sprintf("%s %s %s", familyName(c.Table.Family), c.Table.Name, c.Name))
		}
	}
	return names, nil
}

func drops(c *nftables.Chain) bool { return c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop }

// Generation is the number of the last change of any rule, by anybody: while
// it stays the same there is nothing for Set to do.
func (Firewall) Generation() (uint32, error) {
	sock, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return 0, fmt.Errorf("open nftables socket: %w", err)
	}
	defer sock.Close()
	answers, err := sock.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil || len(answers) == 0 || len(answers[0].Data) < 4 {
		return 0, fmt.Errorf("read generation of nftables: %w", err)
	}
	attrs, err := netlink.NewAttributeDecoder(answers[0].Data[4:])
	if err != nil {
		return 0, fmt.Errorf("read generation of nftables: %w", err)
	}
	attrs.ByteOrder = binary.BigEndian
	for attrs.Next() {
		if attrs.Type() == unix.NFTA_GEN_ID {
			return attrs.Uint32(), nil
		}
	}
	return 0, errors.New("read generation of nftables: the kernel does not say")
}

// keep makes our rules in c those of want, and leaves all others.
func keep(conn *nftables.Conn, c *nftables.Chain, want [][]expr.Any) (res diff.Result, err error) {
	all, err := conn.GetRules(c.Table, c)
	if err != nil {
		return res, err
	}
	ours := slices.DeleteFunc(all, func(r *nftables.Rule) bool { return !owned(r) })
	if slices.EqualFunc(ours, want, func(r *nftables.Rule, w []expr.Any) bool { return same(r.Exprs, w) }) {
		return res, nil
	}
	// One batch: there is no moment without rules.
	for _, w := range want {
		conn.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: w, UserData: userdata.AppendString(nil, userdata.TypeComment, Comment)})
	}
	for _, r := range ours {
		if err := conn.DelRule(r); err != nil {
			return res, err
		}
	}
	if err := conn.Flush(); err != nil {
		return res, err
	}
	return diff.Result{Added: len(want), Removed: len(ours)}, nil
}

func owned(r *nftables.Rule) bool {
	// Walked by hand: the library's reader trusts the lengths.
	for b := r.UserData; len(b) >= 2 && len(b) >= 2+int(b[1]); b = b[2+int(b[1]):] {
		if userdata.Type(b[0]) == userdata.TypeComment && string(b[2:2+int(b[1])]) == Comment+"\x00" {
			return true
		}
	}
	// iptables-restore writes comments in its own way.
	return slices.ContainsFunc(r.Exprs, func(e expr.Any) bool {
		m, ok := e.(*expr.Match)
		if !ok {
			return false
		}
		c, ok := m.Info.(*xt.Comment)
		return ok && strings.TrimRight(string(*c), "\x00") == Comment
	})
}

// same compares what a rule matches; what it counted does not matter.
func same(have, want []expr.Any) bool {
	return slices.EqualFunc(have, want, func(a, b expr.Any) bool {
		if _, counter := b.(*expr.Counter); counter {
			_, counter = a.(*expr.Counter)
			return counter
		}
		x, errX := expr.Marshal(unix.NFPROTO_IPV4, a)
		y, errY := expr.Marshal(unix.NFPROTO_IPV4, b)
		return errX == nil && errY == nil && string(x) == string(y)
	})
}

// rules are written as iptables-nft writes and reads them.
func (w Want) rules(v4 bool) (list [][]expr.Any) {
	if w.Link != "" {
		name := append([]byte(w.Link), make([]byte, unix.IFNAMSIZ-len(w.Link))...)
		for _, key := range []expr.MetaKey{expr.MetaKeyIIFNAME, expr.MetaKeyOIFNAME} {
			list = append(list, accept(&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name}))
		}
	}
	for _, p := range w.Ranges {
		if p.Addr().Is4() != v4 {
			continue
		}
		size := uint32(p.Addr().BitLen() / 8)
		offset := map[bool]uint32{true: 12, false: 8}[v4] // of the source address; the other follows
		for _, at := range []uint32{offset, offset + size} {
			list = append(list, accept(
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: at, Len: size},
				&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()), Xor: make([]byte, size)},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Addr().AsSlice()}))
		}
	}
	return list
}

func accept(match ...expr.Any) []expr.Any {
	return append(match, &expr.Counter{}, &expr.Verdict{Kind: expr.VerdictAccept})
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	case nftables.TableFamilyNetdev:
		return "netdev"
	}
	return "inet"
}
