package vip

import (
	"fmt"
	"time"

	"poplin.dev/poplin/pkg/program/nft"
)

// Bits of the packet mark. They are set on the first packet of a connection
// only, between routing decisions, and cleared before it leaves.
const (
	// MarkMasquerade has the packet masqueraded.
	MarkMasquerade = 0x00100000
	// MarkFromNode has it masqueraded if it leaves this node.
	MarkFromNode = 0x00200000
	markBits     = MarkMasquerade | MarkFromNode
)

// PodGroup is the link group of pods' devices on the host.
const PodGroup = 0x706c

// lowPort keeps masqueraded packets off the overlay's port.
const lowPort = 8473

// family is what the two families' rules differ in.
type family struct {
	suffix                         string
	ipv6                           bool
	saddr, daddr, ctSaddr, ctDaddr nft.Field
}

var families = []family{
	{"4", false, nft.Saddr4, nft.Daddr4, nft.CtSaddr4, nft.CtDaddr4},
	{"6", true, nft.Saddr6, nft.Daddr6, nft.CtSaddr6, nft.CtDaddr6},
}

func (f family) front() nft.Key   { return nft.Key{f.daddr, nft.Proto, nft.Dport} }
func (f family) ctFront() nft.Key { return nft.Key{f.ctDaddr, nft.Proto, nft.CtDport} }

// Chains are the rules. They are of nat type throughout, so that only the
// first packet of a connection pays for them, and depend on nothing but which
// picks and timeouts occur. The class of a packet (its priority, which
// nothing looks at between these rules) carries what a lookup found from one
// rule to the next.
func Chains(picks []Pick, timeouts []uint32) []nft.Chain {
	chains := []nft.Chain{
		{Name: "prerouting", Type: "nat", Hook: "prerouting", Priority: -100, Rules: rules(
			nft.Rule{nft.Jump("fence")},
			nft.Rule{nft.InGroup{Group: PodGroup}, nft.Goto("from-pod")},
			each(func(f family) nft.Rule {
				return nft.Rule{nft.Classify{Key: f.front(), Map: "outside" + f.suffix}, nft.Goto("pick")}
			}),
			each(func(f family) nft.Rule {
				return nft.Rule{nft.Classify{Key: f.front(), Map: "frontends" + f.suffix}, nft.MarkSet{Bits: MarkMasquerade}, nft.Goto("pick")}
			}),
			nft.Rule{nft.Goto("unassigned")},
		)},
		{Name: "output", Type: "nat", Hook: "output", Priority: -100, Rules: rules(
			nft.Rule{nft.Jump("fence")},
			each(func(f family) nft.Rule {
				return nft.Rule{nft.Classify{Key: f.front(), Map: "frontends" + f.suffix}, nft.MarkSet{Bits: MarkFromNode}, nft.Goto("pick")}
			}),
			nft.Rule{nft.Goto("unassigned")},
		)},
		{Name: "from-pod", Rules: rules(
			each(func(f family) nft.Rule {
				return nft.Rule{nft.Classify{Key: f.front(), Map: "frontends" + f.suffix}, nft.Goto("from-pod-pick")}
			}),
			nft.Rule{nft.Goto("unassigned")},
		)},
		{Name: "from-pod-pick", Rules: rules(
			nft.Rule{nft.ClassIs{Mask: MasqueradeMask, Not: true}, nft.MarkSet{Bits: MarkMasquerade}},
			nft.Rule{nft.Goto("pick")},
		)},
		{Name: "fence", Rules: rules(each(func(f family) nft.Rule {
			return nft.Rule{nft.In{Key: f.front(), Set: "fenced" + f.suffix},
				nft.In{Key: append(f.front(), f.saddr), Not: true, Set: "sources" + f.suffix}, nft.Count{}, nft.Silence}
		}))},
		{Name: "unassigned", Rules: rules(
			each(func(f family) nft.Rule {
				return nft.Rule{nft.In{Key: nft.Key{f.daddr}, Set: "addresses" + f.suffix}, nft.IsTCP{}, nft.Reset}
			}),
			each(func(f family) nft.Rule {
				return nft.Rule{nft.In{Key: nft.Key{f.daddr}, Set: "addresses" + f.suffix}, nft.In{Key: nft.Key{nft.Proto}, Set: "protocols"}, nft.Reject}
			}),
			each(func(f family) nft.Rule {
				return nft.Rule{nft.In{Key: nft.Key{f.daddr}, Set: "ranges" + f.suffix}, nft.Count{}, nft.Silence}
			}),
		)},
		{Name: "pick", Rules: []nft.Rule{{nft.Dispatch{Mask: PickMask, Map: "picks"}}}},
		{Name: "refuse", Rules: []nft.Rule{
			{nft.ClassIs{Value: uint32(Refuse)}, nft.IsTCP{}, nft.Reset},
			{nft.ClassIs{Value: uint32(Refuse)}, nft.Reject},
			{nft.Count{}, nft.Silence},
		}},
		{Name: "postrouting", Type: "nat", Hook: "postrouting", Priority: 99, Rules: rules(
			nft.Rule{nft.Translated{}, nft.Jump("arrived")},
			nft.Rule{nft.MarkHas{Bits: MarkFromNode}, nft.OutGroup{Group: PodGroup}, nft.MarkClear{Bits: markBits}, nft.Return},
			nft.Rule{nft.MarkHas{Bits: MarkFromNode}, nft.OutLoopback{}, nft.MarkClear{Bits: markBits}, nft.Return},
			each(func(f family) nft.Rule {
				return nft.Rule{nft.Translated{}, nft.In{Key: nft.Key{f.saddr, f.daddr}, Set: "hairpins" + f.suffix}, nft.MarkSet{Bits: MarkMasquerade}}
			}),
			nft.Rule{nft.MarkHas{Bits: markBits}, nft.MarkClear{Bits: markBits}, nft.Masquerade{Low: lowPort, High: 65535}},
		)},
		{Name: "input", Type: "nat", Hook: "input", Priority: 99, Rules: []nft.Rule{
			{nft.Translated{}, nft.Jump("arrived")},
			{nft.MarkHas{Bits: markBits}, nft.MarkClear{Bits: markBits}},
		}},
		{Name: "arrived", Rules: rules(
			each(func(f family) nft.Rule {
				return nft.Rule{nft.Classify{Key: f.ctFront(), Map: "timeouts" + f.suffix}, nft.Jump("learn")}
			}),
			nft.Rule{nft.ForgetClass{}},
		)},
		{Name: "learn", Rules: []nft.Rule{{nft.Dispatch{Mask: 0, Map: "clocks"}}}},
	}
	for _, p := range picks {
		if p.Count() > 0 {
			chains = append(chains, p.chain())
		}
	}
	for _, t := range timeouts {
		chains = append(chains, learnChain(t))
	}
	return chains
}

// Chain is the name of the chain that picks.
func (p Pick) Chain() string {
	switch {
	case p.Count() == 0:
		return "refuse"
	case p.IsSticky():
		return fmt.Sprintf("sticky-%d", p.Count())
	}
	return fmt.Sprintf("pick-%d", p.Count())
}

// Plain is the pick without regard to earlier choices.
func (p Pick) Plain() Pick { return p &^ stickyBit }

func (p Pick) chain() nft.Chain {
	if p.IsSticky() {
		return nft.Chain{Name: p.Chain(), Rules: rules(
			nft.Rule{nft.KeepClass{Mask: GroupMask}},
			each(func(f family) nft.Rule {
				return nft.Rule{nft.DNAT{IPv6: f.ipv6, Key: nft.Key{f.saddr, nft.Class}, Map: "affinity" + f.suffix}}
			}),
			nft.Rule{nft.Goto(p.Plain().Chain())},
		)}
	}
	draw := func(n int) []nft.Rule {
		return each(func(f family) nft.Rule {
			return nft.Rule{nft.DNAT{IPv6: f.ipv6, Key: nft.Key{nft.Class, nft.Numgen(n)}, Map: "endpoints" + f.suffix}}
		})
	}
	r := rules(nft.Rule{nft.KeepClass{Mask: GroupMask}}, draw(p.Count()))
	if p.Count() > 1 {
		// A group may have become smaller since the packet read its value.
		r = append(r, draw(1)...)
	}
	// And if it is gone, the client tries again: a connection that went on
	// to the address of a Service would never reach an endpoint.
	return nft.Chain{Name: p.Chain(), Rules: append(r, nft.Rule{nft.Count{}, nft.Silence})}
}

// LearnChain is the name of the chain that notes a client's endpoint.
func LearnChain(timeout uint32) string { return fmt.Sprintf("learn-%d", timeout) }

func learnChain(timeout uint32) nft.Chain {
	return nft.Chain{Name: LearnChain(timeout), Rules: rules(
		each(func(f family) nft.Rule { return nft.Rule{nft.Classify{Key: f.ctFront(), Map: "frontends" + f.suffix}} }),
		each(func(f family) nft.Rule {
			return nft.Rule{nft.InGroup{Group: PodGroup, Not: true}, nft.Classify{Key: f.ctFront(), Map: "outside" + f.suffix}}
		}),
		nft.Rule{nft.KeepClass{Mask: GroupMask}},
		each(func(f family) nft.Rule {
			return nft.Rule{nft.Learn{Map: "affinity" + f.suffix, Key: nft.Key{f.ctSaddr, nft.Class}, Data: nft.Key{f.daddr, nft.Dport},
				Timeout: time.Duration(timeout) * time.Second}}
		}),
	)}
}

// each is a rule for each family.
func each(rule func(family) nft.Rule) []nft.Rule {
	var out []nft.Rule
	for _, f := range families {
		out = append(out, rule(f))
	}
	return out
}

// rules joins rules and lists of rules.
func rules(parts ...any) []nft.Rule {
	var out []nft.Rule
	for _, p := range parts {
		switch p := p.(type) {
		case nft.Rule:
			out = append(out, p)
		case []nft.Rule:
			out = append(out, p...)
		}
	}
	return out
}
