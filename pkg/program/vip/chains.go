package vip

import (
	"fmt"
	"time"
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
	saddr, daddr, ctSaddr, ctDaddr Field
}

var families = []family{
	{"4", false, Saddr4, Daddr4, CtSaddr4, CtDaddr4},
	{"6", true, Saddr6, Daddr6, CtSaddr6, CtDaddr6},
}

func (f family) front() Key   { return Key{f.daddr, Proto, Dport} }
func (f family) ctFront() Key { return Key{f.ctDaddr, Proto, CtDport} }

// Chains are the rules. They are of nat type throughout, so that only the
// first packet of a connection pays for them, and depend on nothing but which
// picks and timeouts occur. The class of a packet (its priority, which
// nothing looks at between these rules) carries what a lookup found from one
// rule to the next.
func Chains(picks []Pick, timeouts []uint32) []Chain {
	chains := []Chain{
		{Name: "prerouting", Hook: "prerouting", Priority: -100, Rules: rules(
			Rule{Jump("fence")},
			Rule{InGroup{Group: PodGroup}, Goto("from-pod")},
			each(func(f family) Rule { return Rule{Classify{f.front(), "outside" + f.suffix}, Goto("pick")} }),
			each(func(f family) Rule {
				return Rule{Classify{f.front(), "frontends" + f.suffix}, MarkSet{MarkMasquerade}, Goto("pick")}
			}),
			Rule{Goto("unassigned")},
		)},
		{Name: "output", Hook: "output", Priority: -100, Rules: rules(
			Rule{Jump("fence")},
			each(func(f family) Rule {
				return Rule{Classify{f.front(), "frontends" + f.suffix}, MarkSet{MarkFromNode}, Goto("pick")}
			}),
			Rule{Goto("unassigned")},
		)},
		{Name: "from-pod", Rules: rules(
			each(func(f family) Rule { return Rule{Classify{f.front(), "frontends" + f.suffix}, Goto("from-pod-pick")} }),
			Rule{Goto("unassigned")},
		)},
		{Name: "from-pod-pick", Rules: rules(
			Rule{ClassIs{Mask: MasqueradeMask, Not: true}, MarkSet{MarkMasquerade}},
			Rule{Goto("pick")},
		)},
		{Name: "fence", Rules: rules(each(func(f family) Rule {
			return Rule{In{Key: f.front(), Set: "fenced" + f.suffix},
				In{Key: append(f.front(), f.saddr), Not: true, Set: "sources" + f.suffix}, Count{}, Silence}
		}))},
		{Name: "unassigned", Rules: rules(
			each(func(f family) Rule { return Rule{In{Key: Key{f.daddr}, Set: "addresses" + f.suffix}, IsTCP{}, Reset} }),
			each(func(f family) Rule {
				return Rule{In{Key: Key{f.daddr}, Set: "addresses" + f.suffix}, In{Key: Key{Proto}, Set: "protocols"}, Reject}
			}),
			each(func(f family) Rule { return Rule{In{Key: Key{f.daddr}, Set: "ranges" + f.suffix}, Count{}, Silence} }),
		)},
		{Name: "pick", Rules: []Rule{{Dispatch{PickMask, "picks"}}}},
		{Name: "refuse", Rules: []Rule{
			{ClassIs{Value: uint32(Refuse)}, IsTCP{}, Reset},
			{ClassIs{Value: uint32(Refuse)}, Reject},
			{Count{}, Silence},
		}},
		{Name: "postrouting", Hook: "postrouting", Priority: 99, Rules: rules(
			Rule{Translated{}, Jump("arrived")},
			Rule{MarkHas{MarkFromNode}, OutGroup{PodGroup}, MarkClear{markBits}, Return},
			Rule{MarkHas{MarkFromNode}, OutLoopback{}, MarkClear{markBits}, Return},
			each(func(f family) Rule {
				return Rule{Translated{}, In{Key: Key{f.saddr, f.daddr}, Set: "hairpins" + f.suffix}, MarkSet{MarkMasquerade}}
			}),
			Rule{MarkHas{markBits}, MarkClear{markBits}, Masquerade{lowPort, 65535}},
		)},
		{Name: "input", Hook: "input", Priority: 99, Rules: []Rule{
			{Translated{}, Jump("arrived")},
			{MarkHas{markBits}, MarkClear{markBits}},
		}},
		{Name: "arrived", Rules: rules(
			each(func(f family) Rule { return Rule{Classify{f.ctFront(), "timeouts" + f.suffix}, Jump("learn")} }),
			Rule{ForgetClass{}},
		)},
		{Name: "learn", Rules: []Rule{{Dispatch{0, "clocks"}}}},
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

func (p Pick) chain() Chain {
	if p.IsSticky() {
		return Chain{Name: p.Chain(), Rules: rules(
			Rule{KeepClass{GroupMask}},
			each(func(f family) Rule {
				return Rule{DNAT{f.ipv6, Key{f.saddr, Class}, "affinity" + f.suffix}}
			}),
			Rule{Goto(p.Plain().Chain())},
		)}
	}
	draw := func(n int) []Rule {
		return each(func(f family) Rule { return Rule{DNAT{f.ipv6, Key{Class, Numgen(n)}, "endpoints" + f.suffix}} })
	}
	r := rules(Rule{KeepClass{GroupMask}}, draw(p.Count()))
	if p.Count() > 1 {
		// A group may have become smaller since the packet read its value.
		r = append(r, draw(1)...)
	}
	// And if it is gone, the client tries again: a connection that went on
	// to the address of a Service would never reach an endpoint.
	return Chain{Name: p.Chain(), Rules: append(r, Rule{Count{}, Silence})}
}

// LearnChain is the name of the chain that notes a client's endpoint.
func LearnChain(timeout uint32) string { return fmt.Sprintf("learn-%d", timeout) }

func learnChain(timeout uint32) Chain {
	return Chain{Name: LearnChain(timeout), Rules: rules(
		each(func(f family) Rule { return Rule{Classify{f.ctFront(), "frontends" + f.suffix}} }),
		each(func(f family) Rule {
			return Rule{InGroup{Group: PodGroup, Not: true}, Classify{f.ctFront(), "outside" + f.suffix}}
		}),
		Rule{KeepClass{GroupMask}},
		each(func(f family) Rule {
			return Rule{Learn{Map: "affinity" + f.suffix, Key: Key{f.ctSaddr, Class}, Data: Key{f.daddr, Dport},
				Timeout: time.Duration(timeout) * time.Second}}
		}),
	)}
}

// each is a rule for each family.
func each(rule func(family) Rule) []Rule {
	var out []Rule
	for _, f := range families {
		out = append(out, rule(f))
	}
	return out
}

// rules joins rules and lists of rules.
func rules(parts ...any) []Rule {
	var out []Rule
	for _, p := range parts {
		switch p := p.(type) {
		case Rule:
			out = append(out, p)
		case []Rule:
			out = append(out, p...)
		}
	}
	return out
}
