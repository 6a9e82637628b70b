package program

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Table is one module's part of the nftables table `inet poplin`. Every set,
// counter and chain of it is called Module or starts with "Module-": the name
// is the mark by which the applier knows whose a leftover is.
type Table struct {
	Module string
	Sets   []Set
	Chains []Chain
}

// Set holds prefixes of one family; rules look addresses up in it.
type Set struct {
	Name   string
	Family Family
	// Elements neither overlap nor repeat.
	Elements []netip.Prefix
}

// Add puts one address into the set.
func (s *Set) Add(a netip.Addr) { s.Elements = append(s.Elements, netip.PrefixFrom(a, a.BitLen())) }

// Family is that of a set's addresses.
type Family uint8

// The families of nftables' address types.
const (
	IPv4 Family = 4
	IPv6 Family = 6
)

// Chain holds rules; one with a Hook sees packets, another is jumped to.
type Chain struct {
	Name string
	// Type, Hook and Priority as in nft(8): "nat", "postrouting", 100.
	Type, Hook string
	Priority   int
	Rules      []Rule
}

// Rule does its statements from left to right while they match.
type Rule struct {
	Comment    string
	Statements []Statement
}

// Statement is one of the types below; its String is nft's syntax.
type Statement interface {
	fmt.Stringer
	statement()
}

// InSet matches a packet's address against a set.
type InSet struct {
	Field AddrField
	Not   bool
	Set   string
}

// AddrField is an address in a packet's IP header.
type AddrField string

// Address fields as nft calls them. Each implies its family.
const (
	Saddr4 AddrField = "ip saddr"
	Daddr4 AddrField = "ip daddr"
	Saddr6 AddrField = "ip6 saddr"
	Daddr6 AddrField = "ip6 daddr"
)

// L4Proto matches the transport protocol: "tcp" or "udp".
type L4Proto string

// Masquerade gives a packet an address of the device it leaves by. Low to
// High, if set, are the source ports to choose from, at random.
type Masquerade struct{ Low, High uint16 }

// Goto continues in another chain and does not come back.
type Goto string

// UDPPort matches UDP packets by their destination port.
type UDPPort uint16

// ICMP matches messages by nft's name of their type.
type ICMP string

// ICMPv6 does the same for IPv6.
type ICMPv6 string

// LinkGroup matches the group of the device by which a packet came in.
type LinkGroup uint32

// NoWayBack matches packets whose source address is not routed by the device
// they came in by: the strict reverse path test.
type NoWayBack struct{}

// CountAndDrop ends a packet and counts it in the table's counter of that
// name: the counter stays when rules are replaced.
type CountAndDrop string

// Drop ends a packet silently.
type Drop struct{}

// Accept ends a packet's way through this hook's chains of our table.
type Accept struct{}

// Notrack keeps connection tracking from looking at a packet.
type Notrack struct{}

// Translated matches a packet whose destination was changed on the way.
type Translated struct{}

func (UDPPort) statement()      {}
func (ICMP) statement()         {}
func (ICMPv6) statement()       {}
func (LinkGroup) statement()    {}
func (NoWayBack) statement()    {}
func (CountAndDrop) statement() {}
func (Drop) statement()         {}
func (Accept) statement()       {}
func (Notrack) statement()      {}
func (Translated) statement()   {}

func (p UDPPort) String() string      { return fmt.Sprintf("udp dport %d", uint16(p)) }
func (t ICMP) String() string         { return "icmp type " + string(t) }
func (t ICMPv6) String() string       { return "icmpv6 type " + string(t) }
func (g LinkGroup) String() string    { return fmt.Sprintf("iifgroup %d", uint32(g)) }
func (NoWayBack) String() string      { return "fib saddr . iif oif missing" }
func (c CountAndDrop) String() string { return fmt.Sprintf("counter name %q drop", string(c)) }
func (Drop) String() string           { return "drop" }
func (Accept) String() string         { return "accept" }
func (Notrack) String() string        { return "notrack" }
func (Translated) String() string     { return "ct status dnat" }

func (InSet) statement()      {}
func (L4Proto) statement()    {}
func (Masquerade) statement() {}
func (Goto) statement()       {}

func (s InSet) String() string {
	op := ""
	if s.Not {
		op = "!= "
	}
	return fmt.Sprintf("%s %s@%s", s.Field, op, s.Set)
}

func (p L4Proto) String() string { return "meta l4proto " + string(p) }

func (m Masquerade) String() string {
	if m == (Masquerade{}) {
		return "masquerade"
	}
	return fmt.Sprintf("masquerade to :%d-%d fully-random", m.Low, m.High)
}

func (g Goto) String() string { return "goto " + string(g) }

// String is the rule as nft prints it.
func (r Rule) String() string {
	var b strings.Builder
	for i, s := range r.Statements {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(s.String())
	}
	if r.Comment != "" {
		fmt.Fprintf(&b, " comment %q", r.Comment)
	}
	return b.String()
}

// Declaration is the set without its elements, as nft prints it.
func (s Set) Declaration() string {
	return fmt.Sprintf("set %s { type ipv%d_addr; flags interval; }", s.Name, s.Family)
}

// Declaration is the chain without its rules, as nft prints it.
func (c Chain) Declaration() string {
	if c.Hook == "" {
		return fmt.Sprintf("chain %s { }", c.Name)
	}
	return fmt.Sprintf("chain %s { type %s hook %s priority %d; policy accept; }", c.Name, c.Type, c.Hook, c.Priority)
}

// Counters are the names of those that the rules count in, sorted.
func (t Table) Counters() []string {
	var names []string
	for _, c := range t.Chains {
		for _, r := range c.Rules {
			for _, s := range r.Statements {
				if counter, ok := s.(CountAndDrop); ok {
					names = append(names, string(counter))
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// String is the program in the order in which it was compiled, elements sorted.
func (t Table) String() string {
	var b strings.Builder
	for _, s := range t.Sets {
		fmt.Fprintln(&b, s.Declaration())
		writeSorted(&b, s.Elements, func(p netip.Prefix) string { return "\t" + p.String() })
	}
	for _, name := range t.Counters() {
		fmt.Fprintf(&b, "counter %s { }\n", name)
	}
	for _, c := range t.Chains {
		fmt.Fprintln(&b, c.Declaration())
		for _, r := range c.Rules {
			fmt.Fprintf(&b, "\t%s\n", r)
		}
	}
	return b.String()
}
