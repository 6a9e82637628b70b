package permit

import (
	"slices"
	"strings"

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

// Chains are the rules: always the same, but for the label of the epoch. They
// see what is forwarded only, so that what a node exchanges with its own pods,
// the kubelet's probes for one, is never in question. The first packet of a
// connection that is permitted labels it. Of a connection with another label, or
// none, every packet is decided by itself: an answer is looked up as the packet
// that it answers would be. The class of a packet (its priority, which nothing
// looks at between these rules) carries what a lookup found from one rule to the
// next.
func Chains(e Epoch) []nft.Chain {
	return []nft.Chain{
		Forward(e),
		{Name: "replies", Rules: isolated("-replies", family.turned)},
		{Name: "egress", Rules: lookup("egress", EgressPorts, family.same)},
		{Name: "ingress", Rules: lookup("ingress", IngressPorts, inward(family.same))},
		{Name: "egress-replies", Rules: lookup("egress", EgressPortsReplies, family.turned)},
		{Name: "ingress-replies", Rules: lookup("ingress", IngressPortsReplies, inward(family.turned))},
		{Name: EgressPorts, Rules: ports(nft.Dport)},
		{Name: IngressPorts, Rules: ports(nft.Dport)},
		{Name: EgressPortsReplies, Rules: ports(nft.Sport)},
		{Name: IngressPortsReplies, Rules: ports(nft.Sport)},
	}
}

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
		if n := len(c.Rules) - 1; slices.Contains(c.Rules[n], nft.Statement(nft.Silence)) {
			tell := nft.Rule{nft.Limit{Rate: logRate}, nft.Log{Prefix: c.Name, Group: LogGroup, Length: logLength}}
			chains[i].Rules = slices.Insert(c.Rules, n, tell)
		}
	}
	return chains
}

// Forward is the one chain that an epoch is named in.
func Forward(e Epoch) nft.Chain {
	c := nft.Chain{Name: "forward", Type: "filter", Hook: "forward", Priority: after}
	if e != 0 {
		c.Rules = append(c.Rules, nft.Rule{nft.Labelled{Label: e.Label()}, nft.Return})
	}
	c.Rules = append(append(c.Rules, nft.Rule{nft.Reply{}, nft.Goto("replies")}), isolated("", family.same)...)
	if e != 0 {
		// Only the first packets: the label of another epoch cannot be taken off.
		c.Rules = append(c.Rules, nft.Rule{nft.New{}, nft.SetLabel{Label: e.Label()}})
	}
	return c
}

func (f family) same() family { return f }

// inward has the receiver take the sender's place: it is the isolated one.
func inward(f func(family) family) func(family) family {
	return func(g family) family { return f(g).turned() }
}

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
// pod sends to itself.
func ports(port nft.Field) []nft.Rule {
	rules := []nft.Rule{
		{nft.ClassIs{Mask: everythingBit, Not: true}, nft.ForgetClass{}, nft.Return},
		{nft.In{Key: nft.Key{nft.Class, nft.Proto, port}, Set: "ports"}, nft.ForgetClass{}, nft.Return},
		{nft.In{Key: nft.Key{nft.Proto}, Not: true, Set: "protocols"}, nft.ClassIs{Mask: othersBit, Not: true}, nft.ForgetClass{}, nft.Return},
		{nft.Related{}, nft.ForgetClass{}, nft.Return},
	}
	for _, f := range families {
		rules = append(rules, nft.Rule{nft.In{Key: nft.Key{f.saddr, f.daddr}, Set: "loops" + f.suffix}, nft.ForgetClass{}, nft.Return})
	}
	return append(rules, nft.Rule{nft.Count{}, nft.Silence})
}
