package permit

import (
	"slices"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/program/nft"
)

// family is what the two families' rules differ in.
type family struct {
	suffix       string
	saddr, daddr nft.Field
}

var families = []family{{"4", nft.Saddr4, nft.Daddr4}, {"6", nft.Saddr6, nft.Daddr6}}

// turned is the family for packets that answer: the ends change places.
func (f family) turned() family { return family{f.suffix, f.daddr, f.saddr} }

// after is behind the guards and the firewalls of most other programs, whose
// drops are theirs to explain.
const after = 10

// Chains are the rules: always the same, but for the first, which names the
// epoch. They see what is forwarded only, so that what a node exchanges with its
// own pods, the kubelet's probes for one, is never in question. The first packet
// of a connection that is permitted labels it. Of a connection with another label,
// or none, every packet is decided by itself: an answer is looked up as the packet
// that it answers would be. The class of a packet (its priority, which nothing
// looks at between these rules) carries what a lookup found from one rule to the
// next.
func Chains(s State) []nft.Chain {
	decide, replies := isolated("", family.same), isolated("-replies", family.turned)
	done := nft.Statement(nft.ForgetClass{})
	if s.Epoch != 0 {
		done = decided
		decide = slices.Concat(knowing(family.same, nft.Dport), decide)
		replies = slices.Concat(knowing(family.turned, nft.Sport), replies, []nft.Rule{{nft.ForgetClass{}}})
	}
	return []nft.Chain{
		Forward(s),
		{Name: "decide", Rules: decide},
		{Name: "replies", Rules: replies},
		{Name: "egress", Rules: lookup("egress", EgressPorts, family.same)},
		{Name: "ingress", Rules: lookup("ingress", IngressPorts, inward(family.same))},
		{Name: "egress-replies", Rules: lookup("egress", EgressPortsReplies, family.turned)},
		{Name: "ingress-replies", Rules: lookup("ingress", IngressPortsReplies, inward(family.turned))},
		{Name: EgressPorts, Rules: ports(nft.Dport, done)},
		{Name: IngressPorts, Rules: ports(nft.Dport, done)},
		{Name: EgressPortsReplies, Rules: ports(nft.Sport, nft.ForgetClass{})},
		{Name: IngressPortsReplies, Rules: ports(nft.Sport, nft.ForgetClass{})},
	}
}

// State is what rules depend on.
type State struct {
	Epoch Epoch
	// Isolating says that a pod is isolated: without one there is nothing to
	// decide.
	Isolating bool
	// Keeping says that connections which exist are not decided again.
	Keeping bool
}

// Isolating reports whether p isolates a pod.
func (p Program) Isolating() bool { return len(p.Senders)+len(p.Receivers) > 0 }

// The chains whose last rule counts and drops.
const (
	EgressPorts         = "egress-ports"
	IngressPorts        = "ingress-ports"
	EgressPortsReplies  = EgressPorts + replies
	IngressPortsReplies = IngressPorts + replies

	replies = "-replies"
)

// Dropping says what a chain drops: what isolated pods send, or what they are
// sent; and whether it is answers to that.
func Dropping(chain string) (egress, reply bool) {
	return strings.HasPrefix(chain, "egress"), strings.HasSuffix(chain, replies)
}

const (
	// LogGroup is where packets that are dropped can be heard of.
	LogGroup = 0x706c
	// logRate is how many a second are told by each chain: more would be work
	// for the node just when somebody floods it.
	logRate = 250
	// logLength of a packet has its headers, with those that IPv6 may add.
	logLength = 128
)

// Logging adds to chains that each packet that is dropped is told to LogGroup,
// under the name of the chain that does.
func Logging(chains []nft.Chain) []nft.Chain {
	for i, c := range chains {
		if n := len(c.Rules) - 1; n >= 0 && slices.Contains(c.Rules[n], nft.Statement(nft.Silence)) {
			tell := nft.Rule{nft.Limit{Rate: logRate}, nft.Log{Prefix: c.Name, Group: LogGroup, Length: logLength}}
			chains[i].Rules = slices.Insert(c.Rules, n, tell)
		}
	}
	return chains
}

const (
	// memory is how long it is known that a packet was permitted, and KnownMax
	// how many are known at a time. Of more, each is decided.
	memory   = 10 * time.Second
	KnownMax = 1 << 15
)

// Forward is the one chain that an epoch is named in. A packet that is not of a
// labelled connection carries the epoch to where it is decided, and comes back
// with decidedBit if only its addresses, its protocol and its port mattered: the
// next one like it is permitted at once, as long as the epoch lasts.
func Forward(s State) nft.Chain {
	c := nft.Chain{Name: "forward", Type: "filter", Hook: "forward", Priority: after}
	rules := func(list ...nft.Rule) { c.Rules = append(c.Rules, list...) }
	if s.Isolating && s.Keeping {
		rules(nft.Rule{nft.Established{}, nft.Return})
	}
	carry := nft.Rule{nft.SetClass{Value: s.Epoch.class()}}
	switch {
	case !s.Isolating:
	case s.Epoch == 0:
		rules(nft.Rule{nft.Reply{}, nft.Goto("replies")}, nft.Rule{nft.Jump("decide")})
	default:
		rules(
			nft.Rule{nft.Labelled{Label: s.Epoch.Label()}, nft.Return},
			carry,
			nft.Rule{nft.Reply{}, nft.Goto("replies")},
			nft.Rule{nft.Jump("decide")},
			// Only the first packets: the label of another epoch cannot be taken off.
			nft.Rule{nft.New{}, nft.SetLabel{Label: s.Epoch.Label()}},
			nft.Rule{nft.ClassIs{Mask: decidedBit}, nft.ForgetClass{}, nft.Return},
			nft.Rule{nft.In{Key: nft.Key{nft.Proto}, Not: true, Set: "protocols"}, nft.ForgetClass{}, nft.Return},
			nft.Rule{nft.Related{}, nft.ForgetClass{}, nft.Return},
			carry)
		for _, f := range families {
			rules(nft.Rule{nft.Learn{Map: "known" + f.suffix, Key: f.known(nft.Dport), Timeout: memory}})
		}
		rules(nft.Rule{nft.ForgetClass{}})
	}
	return c
}

// known is the key of a packet that may be known to be permitted.
func (f family) known(port nft.Field) nft.Key {
	return nft.Key{nft.Class, f.saddr, f.daddr, nft.Proto, port}
}

// knowing ends packets that are known to be permitted.
func knowing(end func(family) family, port nft.Field) (rules []nft.Rule) {
	for _, f := range families {
		rules = append(rules, nft.Rule{nft.In{Key: end(f).known(port), Set: "known" + f.suffix}, nft.ForgetClass{}, nft.Return})
	}
	return rules
}

func (f family) same() family { return f }

// inward has the receiver take the sender's place: it is the isolated one.
func inward(f func(family) family) func(family) family {
	return func(g family) family { return f(g).turned() }
}

// decided is the class of a packet that its addresses, protocol and port permit.
var decided = nft.SetClass{Value: decidedBit}

const decidedBit = 1 << 31

// isolated sends what begins or ends at an isolated pod where it is decided.
func isolated(suffix string, end func(family) family) []nft.Rule {
	var rules []nft.Rule
	for _, f := range families {
		f = end(f)
		rules = append(rules, nft.Rule{nft.In{Key: nft.Key{f.saddr}, Set: "senders" + f.suffix}, nft.Jump("egress" + suffix)})
	}
	for _, f := range families {
		f = end(f)
		rules = append(rules, nft.Rule{nft.In{Key: nft.Key{f.daddr}, Set: "receivers" + f.suffix}, nft.Jump("ingress" + suffix)})
	}
	return rules
}

// lookup finds the class of the other end, and the ports of pod and class. In
// the family that end returns the source is the isolated pod.
func lookup(pairs, ports string, end func(family) family) []nft.Rule {
	rules := []nft.Rule{{nft.ForgetClass{}}}
	for _, f := range families {
		rules = append(rules, nft.Rule{nft.Classify{Key: nft.Key{end(f).daddr}, Map: "peers" + f.suffix}})
	}
	for _, f := range families {
		rules = append(rules, nft.Rule{nft.ClassIs{}, nft.Classify{Key: nft.Key{end(f).daddr}, Map: "ranges" + f.suffix}})
	}
	for range 2 {
		for _, f := range families {
			rules = append(rules, nft.Rule{
				nft.Classify{Key: nft.Key{end(f).saddr, nft.Class}, Map: pairs + f.suffix}, nft.Goto(ports),
			})
		}
		rules = append(rules, nft.Rule{nft.ForgetClass{}}) // what everybody may
	}
	rules[len(rules)-1] = nft.Rule{nft.Goto(ports)} // where class 0 has nothing
	return rules
}

// ports ends a packet that a set of ports does not have, unless it is not for
// policies to decide: an error about a connection that is permitted, or what a
// pod sends to itself. What they permit by themselves leaves with done.
func ports(port nft.Field, done nft.Statement) []nft.Rule {
	rules := []nft.Rule{
		{nft.ClassIs{Mask: everythingBit, Not: true}, done, nft.Return},
		{nft.In{Key: nft.Key{nft.Class, nft.Proto, port}, Set: "ports"}, done, nft.Return},
		{nft.In{Key: nft.Key{nft.Class, nft.Proto, port}, Set: "spans"}, done, nft.Return},
		{nft.In{Key: nft.Key{nft.Proto}, Not: true, Set: "protocols"}, nft.ClassIs{Mask: othersBit, Not: true}, nft.ForgetClass{}, nft.Return},
		{nft.Related{}, nft.ForgetClass{}, nft.Return},
	}
	for _, f := range families {
		rules = append(rules, nft.Rule{nft.In{Key: nft.Key{f.saddr, f.daddr}, Set: "loops" + f.suffix}, nft.ForgetClass{}, nft.Return})
	}
	return append(rules, nft.Rule{nft.Count{}, nft.Silence})
}
