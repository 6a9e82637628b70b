// Package nft is the language of rules in which programs say what becomes of
// a packet: chains, rules, and the statements that our tables need. Inputs and
// outputs are values; String is what nft(8) prints, and test/flow holds it to
// that. It refuses to know what a map is about, and netlink.
package nft

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/program/elements"
)

// Chain holds rules; one with a Hook sees packets, another is jumped to.
type Chain struct {
	Name string
	// Type, Hook and Priority as in nft(8). A chain of type "nat" sees the
	// first packet of each connection, one of type "filter" every packet.
	Type, Hook string
	Priority   int
	Rules      []Rule
}

// Rule does its statements from left to right while they match.
type Rule []Statement

// Statement is one of the types below; its String is what nft prints.
type Statement interface{ String() string }

// Field is a part of a key, by nft's name.
type Field string

// Fields. Numgen is another one for each modulus.
const (
	Saddr4       Field = "ip saddr"
	Daddr4       Field = "ip daddr"
	Saddr6       Field = "ip6 saddr"
	Daddr6       Field = "ip6 daddr"
	Proto        Field = "meta l4proto"
	Sport        Field = "th sport"
	Dport        Field = "th dport"
	Class        Field = "meta priority"
	CtSaddr4     Field = "ct original ip saddr"
	CtDaddr4     Field = "ct original ip daddr"
	CtSaddr6     Field = "ct original ip6 saddr"
	CtDaddr6     Field = "ct original ip6 daddr"
	CtDport      Field = "ct original proto-dst"
	numgenPrefix       = "numgen random mod "
)

// Numgen is a random number below n.
func Numgen(n int) Field { return Field(numgenPrefix + strconv.Itoa(n)) }

// Modulus is the n of a Numgen, 0 for other fields.
func (f Field) Modulus() int {
	n, _ := strconv.Atoi(strings.TrimPrefix(string(f), numgenPrefix))
	return n
}

// Key is looked up.
type Key []Field

func (k Key) String() string {
	parts := make([]string, len(k))
	for i, f := range k {
		parts[i] = string(f)
	}
	return strings.Join(parts, " . ")
}

// In matches if a set has the key.
type In struct {
	Key Key
	Not bool
	Set string
}

// Classify looks a Value or a number up and remembers it in the packet's
// priority. Without such an element it does not match.
type Classify struct {
	Key Key
	Map string
}

// Dispatch goes on in the chain that a map has for the class under a mask.
type Dispatch struct {
	Mask uint32
	Map  string
}

// ClassIs matches the class under a mask.
type ClassIs struct {
	Mask  uint32
	Not   bool
	Value uint32
}

// KeepClass clears the bits of the class that are not in Mask.
type KeepClass struct{ Mask uint32 }

// SetClass sets the priority.
type SetClass struct{ Value uint32 }

// ForgetClass sets the priority to none.
type ForgetClass struct{}

// MarkHas matches if one of the bits is set.
type MarkHas struct{ Bits uint32 }

// MarkSet sets bits of the packet's mark.
type MarkSet struct{ Bits uint32 }

// MarkClear clears bits of the packet's mark.
type MarkClear struct{ Bits uint32 }

// InGroup matches the group of the device by which a packet came.
type InGroup struct {
	Group uint32
	Not   bool
}

// OutGroup matches the group of the device by which a packet leaves.
type OutGroup struct{ Group uint32 }

// OutLoopback matches packets that stay on this node.
type OutLoopback struct{}

// Translated matches connections with a translated destination.
type Translated struct{}

// Related matches what belongs to another connection, such as an ICMP error.
type Related struct{}

// Reply matches packets of a connection in the direction of answers.
type Reply struct{}

// New matches packets of a connection that nobody has answered yet.
type New struct{}

// Established matches packets of a connection that was answered.
type Established struct{}

// Label is bits that a connection carries with it; bit n is in byte n/8. A rule
// can set them and not clear them.
type Label [16]byte

// Labelled matches connections that carry a label and nothing else.
type Labelled struct{ Label Label }

// SetLabel adds the bits of a label to those of the connection.
type SetLabel struct{ Label Label }

// DNAT sends the connection to the address and port that a map has for the
// key. Without such an element it does not match.
type DNAT struct {
	IPv6 bool
	Key  Key
	Map  string
}

// Learn enters Data, if any, under Key for some time, or else extends the time
// of what is there.
type Learn struct {
	Map       string
	Key, Data Key
	Timeout   time.Duration
}

// Masquerade gives the packet an address of the device by which it leaves,
// and a random port in the range.
type Masquerade struct{ Low, High uint16 }

// IsTCP matches TCP.
type IsTCP struct{}

// Verdict ends a rule. Reject answers "port unreachable", Reset with a TCP
// reset: a client in the middle of connect() takes the former for a hint and
// asks again a second later (IPv6, seen with kernel 6.18), the latter at once.
type Verdict struct{ Kind, Chain string }

// Count counts packets.
type Count struct{}

// Limit matches at most Rate packets a second, and as many at once.
type Limit struct{ Rate uint32 }

// Log tells the first bytes of a packet to whoever listens to a group of
// nfnetlink_log.
type Log struct {
	Prefix string
	Group  uint16
	Length uint32
}

// Verdicts.
var (
	Silence = Verdict{Kind: "drop"}
	Reject  = Verdict{Kind: "reject"}
	Reset   = Verdict{Kind: "reject with tcp reset"}
	Return  = Verdict{Kind: "return"}
)

// Goto and Jump continue in another chain; Jump comes back.
func Goto(chain string) Verdict { return Verdict{"goto", chain} }

// Jump continues in another chain and comes back.
func Jump(chain string) Verdict { return Verdict{"jump", chain} }

func (s In) String() string {
	if s.Not {
		return fmt.Sprintf("%s != @%s", s.Key, s.Set)
	}
	return fmt.Sprintf("%s @%s", s.Key, s.Set)
}

func (s Classify) String() string { return fmt.Sprintf("meta priority set %s map @%s", s.Key, s.Map) }

func (s Dispatch) String() string {
	if s.Mask == 0 {
		return "meta priority vmap @" + s.Map
	}
	return fmt.Sprintf("meta priority & %s vmap @%s", elements.ClassID(s.Mask), s.Map)
}

func classValue(v uint32) string {
	if v == 0 {
		return "none"
	}
	return elements.ClassID(v)
}

func (s ClassIs) String() string {
	value := classValue(s.Value)
	if s.Mask == 0 {
		return "meta priority " + value
	}
	op := map[bool]string{false: "==", true: "!="}[s.Not]
	return fmt.Sprintf("meta priority & %s %s %s", elements.ClassID(s.Mask), op, value)
}

func (s KeepClass) String() string {
	return "meta priority set meta priority & " + elements.ClassID(s.Mask)
}
func (s SetClass) String() string  { return "meta priority set " + classValue(s.Value) }
func (ForgetClass) String() string { return "meta priority set none" }
func (s MarkHas) String() string {
	return fmt.Sprintf("meta mark & 0x%08x != 0x00000000", s.Bits)
}
func (s MarkSet) String() string   { return fmt.Sprintf("meta mark set meta mark | 0x%08x", s.Bits) }
func (s MarkClear) String() string { return fmt.Sprintf("meta mark set meta mark & 0x%08x", ^s.Bits) }

func (s InGroup) String() string {
	if s.Not {
		return fmt.Sprintf("iifgroup != %d", s.Group)
	}
	return fmt.Sprintf("iifgroup %d", s.Group)
}
func (s OutGroup) String() string  { return fmt.Sprintf("oifgroup %d", s.Group) }
func (OutLoopback) String() string { return `oif "lo"` }
func (Translated) String() string  { return "ct status dnat" }
func (Related) String() string     { return "ct state related" }
func (Reply) String() string       { return "ct direction reply" }
func (New) String() string         { return "ct state new" }
func (Established) String() string { return "ct state established" }
func (s Labelled) String() string  { return "ct label " + s.Label.String() }
func (s SetLabel) String() string  { return "ct label set " + s.Label.String() }

func (l Label) String() string {
	var bits []string
	for n := range 8 * len(l) {
		if l[n/8]>>(n%8)&1 != 0 {
			bits = append(bits, strconv.Itoa(n))
		}
	}
	return strings.Join(bits, " | ")
}

func (s DNAT) String() string {
	return fmt.Sprintf("dnat %s to %s map @%s", map[bool]string{false: "ip", true: "ip6"}[s.IPv6], s.Key, s.Map)
}

func (s Learn) String() string {
	if s.Data == nil {
		return fmt.Sprintf("update @%s { %s timeout %s }", s.Map, s.Key, nftTime(s.Timeout))
	}
	return fmt.Sprintf("update @%s { %s timeout %s : %s }", s.Map, s.Key, nftTime(s.Timeout), s.Data)
}

func (s Masquerade) String() string {
	return fmt.Sprintf("masquerade to :%d-%d fully-random", s.Low, s.High)
}

func (IsTCP) String() string     { return "meta l4proto tcp" }
func (v Verdict) String() string { return strings.TrimSpace(v.Kind + " " + v.Chain) }
func (Count) String() string     { return "counter" }

func (s Limit) String() string {
	return fmt.Sprintf("limit rate %d/second burst %[1]d packets", s.Rate)
}

func (s Log) String() string {
	return fmt.Sprintf("log prefix %q group %d snaplen %d", s.Prefix, s.Group, s.Length)
}

func (r Rule) String() string {
	parts := make([]string, len(r))
	for i, s := range r {
		parts[i] = s.String()
	}
	return strings.Join(parts, " ")
}

// nftTime writes a duration as nft does.
func nftTime(d time.Duration) string {
	var b strings.Builder
	s := int64(d / time.Second)
	for _, unit := range []struct {
		name string
		len  int64
	}{{"d", 86400}, {"h", 3600}, {"m", 60}, {"s", 1}} {
		if n := s / unit.len; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, unit.name)
		}
		s %= unit.len
	}
	return b.String()
}
