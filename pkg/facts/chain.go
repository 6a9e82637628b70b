package facts

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster/service"
)

// Chain is a chain of another program, or one that such a chain jumps to.
type Chain struct {
	Family string `json:"family"`
	Table  string `json:"table"`
	Name   string `json:"name"`
	// Hook is empty for a chain that is only jumped to.
	Hook     string `json:"hook,omitempty"`
	Priority int    `json:"priority,omitempty"`
	// Devices are those whose packets it sees, at the hooks ingress and egress.
	Devices []string `json:"devices,omitempty"`
	// Drops says that the policy is to drop.
	Drops bool   `json:"drops,omitempty"`
	Rules []Rule `json:"rules,omitempty"`
}

func (c Chain) String() string { return fmt.Sprintf("%s %s %s", c.Family, c.Table, c.Name) }

// Rule is one rule, as far as it is understood.
type Rule struct {
	Handle uint64 `json:"handle"`
	// Addresses and ports are what the rule matches; a rule without any
	// matches all packets.
	Src    *AddrMatch `json:"src,omitempty"`
	Dst    *AddrMatch `json:"dst,omitempty"`
	Proto  *NumMatch  `json:"proto,omitempty"`
	Sport  *NumMatch  `json:"sport,omitempty"`
	Dport  *NumMatch  `json:"dport,omitempty"`
	In     *NameMatch `json:"in,omitempty"`
	Out    *NameMatch `json:"out,omitempty"`
	Sets   []SetMatch `json:"sets,omitempty"`
	Family int        `json:"family,omitempty"` // 4 or 6 where only one matches
	// NotNew says that the rule is about connections that exist.
	NotNew bool `json:"notNew,omitempty"`
	// Obscure lists conditions that were not understood.
	Obscure []string `json:"obscure,omitempty"`
	// Mark and Zone are what the rule writes on the packet.
	Mark *MarkWrite `json:"mark,omitempty"`
	Zone *uint16    `json:"zone,omitempty"`
	// Verdict is accept, drop, reject, dnat, notrack, jump, goto, return, or empty.
	Verdict string `json:"verdict,omitempty"`
	To      string `json:"to,omitempty"`
}

// AddrMatch is a range of addresses.
type AddrMatch struct {
	Not    bool         `json:"not,omitempty"`
	Prefix netip.Prefix `json:"prefix"`
}

// NumMatch is a range of numbers: ports or protocols.
type NumMatch struct {
	Not  bool   `json:"not,omitempty"`
	Low  uint16 `json:"low"`
	High uint16 `json:"high"`
}

// NameMatch is a device's name, or the beginning of one.
type NameMatch struct {
	Not    bool   `json:"not,omitempty"`
	Name   string `json:"name"`
	Prefix bool   `json:"prefix,omitempty"`
}

// Packet is what rules look at.
type Packet struct {
	Flow
	In, Out string
	// Sport is 0 where it may be any.
	Sport uint16
}

// Fate is what a chain does to a packet.
type Fate int

// Fates. Perhaps is said where a rule drops, and whether it matches depends
// on what is not understood.
const (
	Passes Fate = iota
	Perhaps
	Dropped
)

// Judge walks the chains of one hook of one table over a packet, and names
// the rule or policy that drops it.
func Judge(chains []Chain, base Chain, p Packet) (Fate, string) {
	return Find(chains, base, p, "drop", "reject")
}

// Find does so for rules with other verdicts; Dropped is that one has it.
func Find(chains []Chain, base Chain, p Packet, verdicts ...string) (Fate, string) {
	if base.Family == "ip" && !p.To.Addr().Is4() || base.Family == "ip6" && p.To.Addr().Is4() {
		return Passes, "" // a table of one family sees no other
	}
	if base.Hook == Ingress && !slices.Contains(base.Devices, p.In) || base.Hook == Egress && !slices.Contains(base.Devices, p.Out) {
		return Passes, ""
	}
	w := newJudge(chains, base, p, verdicts...)
	end := w.walk(base, 0)
	if end == "" && base.Drops && slices.Contains(verdicts, "drop") {
		end, w.why = "drop", "policy drop of chain "+base.String()
	}
	switch {
	case slices.Contains(verdicts, end) && w.accepted:
		return Perhaps, w.why
	case slices.Contains(verdicts, end):
		return Dropped, w.why
	case w.doubt != "":
		return Perhaps, w.doubt
	}
	return Passes, ""
}

// Ingress and Egress are hooks of devices, before and behind all others.
const (
	Ingress = "ingress"
	Egress  = "egress"
)

// maxDepth is the kernel's own limit of jumps (NFT_JUMP_STACK_SIZE).
const maxDepth = 16

type judge struct {
	byName map[string]Chain
	packet Packet
	// verdicts are looked for.
	verdicts []string
	// accepted: a rule that may match accepts. doubt: one that may match drops.
	accepted   bool
	doubt, why string
	// unsure counts the jumps that may not have been taken.
	unsure int
	// labels are on the packet; wrote is the rule that wrote them.
	labels Labels
	wrote  string
}

func newJudge(chains []Chain, base Chain, p Packet, verdicts ...string) *judge {
	w := &judge{byName: map[string]Chain{}, packet: p, verdicts: verdicts}
	for _, c := range chains {
		if c.Family == base.Family && c.Table == base.Table {
			w.byName[c.Name] = c
		}
	}
	return w
}

// walk returns what ends the packet's way, or nothing where the chain ends.
func (w *judge) walk(c Chain, depth int) string {
	if depth == maxDepth {
		return ""
	}
	for _, r := range c.Rules {
		if !r.matches(w.packet) {
			continue
		}
		sure := len(r.Obscure) == 0 && w.unsure == 0
		if now := w.labels.write(r); sure && now != w.labels {
			w.labels, w.wrote = now, fmt.Sprintf("rule %d of chain %s: %s", r.Handle, c, r)
		}
		if slices.Contains(w.verdicts, r.Verdict) {
			where := fmt.Sprintf("rule %d of chain %s: %s", r.Handle, c, r)
			if sure {
				w.why = where
				return r.Verdict
			}
			if w.doubt == "" {
				w.doubt = where
			}
			continue
		}
		switch r.Verdict {
		case "accept", "drop", "reject", "dnat":
			if sure {
				return r.Verdict
			}
			w.accepted = true
		case "return":
			if sure {
				return ""
			}
		case "jump", "goto":
			if !sure {
				w.unsure++
			}
			end := w.walk(w.byName[r.To], depth+1)
			if !sure {
				w.unsure--
			}
			if end != "" || r.Verdict == "goto" && sure {
				return end
			}
		}
	}
	return ""
}

// matches is false only where the rule cannot match the first packet of the flow.
func (r Rule) matches(p Packet) bool {
	to := p.To.Addr()
	switch {
	case r.NotNew, r.Family == 4 && !to.Is4(), r.Family == 6 && !to.Is6(),
		!r.Dst.has(to), p.Src.IsValid() && !r.Src.has(p.Src),
		!r.Proto.has(uint16(p.Proto)), !r.Dport.has(p.To.Port()),
		p.Sport != 0 && !r.Sport.has(p.Sport), !r.In.has(p.In), !r.Out.has(p.Out):
		return false
	case r.Sport != nil && p.Sport == 0, (r.Dport != nil || r.Sport != nil) && !hasPorts(p.Proto):
		return false // a client's port is any: a rule about one is about answers
	}
	return !slices.ContainsFunc(r.Sets, func(m SetMatch) bool { return !m.matches(p) })
}

func hasPorts(p service.Protocol) bool {
	return p == service.TCP || p == service.UDP || p == service.SCTP
}

func (m *AddrMatch) has(a netip.Addr) bool { return m == nil || m.Prefix.Contains(a) != m.Not }
func (m *NumMatch) has(v uint16) bool      { return m == nil || (m.Low <= v && v <= m.High) != m.Not }

func (m *NameMatch) has(name string) bool {
	if m == nil {
		return true
	}
	match := name == m.Name || m.Prefix && strings.HasPrefix(name, m.Name)
	return match != m.Not
}

// String is close to what nft prints.
func (r Rule) String() string {
	var parts []string
	not := func(b bool) string {
		if b {
			return "!= "
		}
		return ""
	}
	addr := func(name string, m *AddrMatch) {
		if m != nil {
			parts = append(parts, name+" "+not(m.Not)+m.Prefix.String())
		}
	}
	number := func(name string, m *NumMatch) {
		if m != nil {
			text := fmt.Sprint(m.Low)
			if m.High != m.Low {
				text += fmt.Sprintf("-%d", m.High)
			}
			parts = append(parts, name+" "+not(m.Not)+text)
		}
	}
	name := func(name string, m *NameMatch) {
		if m != nil {
			star := ""
			if m.Prefix {
				star = "*"
			}
			parts = append(parts, name+" "+not(m.Not)+m.Name+star)
		}
	}
	name("iifname", r.In)
	name("oifname", r.Out)
	addr("saddr", r.Src)
	addr("daddr", r.Dst)
	number("protocol", r.Proto)
	number("sport", r.Sport)
	number("dport", r.Dport)
	for _, m := range r.Sets {
		parts = append(parts, m.String())
	}
	for _, o := range r.Obscure {
		parts = append(parts, "("+o+")")
	}
	if r.Mark != nil {
		parts = append(parts, fmt.Sprintf("mark set %#x", r.Mark.Flip))
	}
	if r.Zone != nil {
		parts = append(parts, fmt.Sprintf("ct zone set %d", *r.Zone))
	}
	return strings.TrimSpace(strings.Join(append(parts, r.Verdict, r.To), " "))
}
