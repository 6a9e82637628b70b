package overlay

import (
	"net/netip"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program"
)

// GuardModule is the guards' part of the nftables table.
const GuardModule = "guard"

// PodLinkGroup is the group of the devices that lead to pods (netlink's
// IFLA_GROUP). Rules match it because names can be anybody's.
const PodLinkGroup = 0x706c

// Names of the guards' sets, counters and chains. Peers are the other nodes'
// VTEPs, self this node's.
const (
	peers4, peers6 = GuardModule + "-peers4", GuardModule + "-peers6"
	self4, self6   = GuardModule + "-self4", GuardModule + "-self6"
	noise6         = GuardModule + "-noise6"
	all4, all6     = GuardModule + "-all4", GuardModule + "-all6"

	fromPods  = GuardModule + "-pods"
	genuine   = GuardModule + "-genuine"
	arrived   = GuardModule + "-arrived"
	passing   = GuardModule + "-passing"
	sent      = GuardModule + "-sent"
	onArrival = GuardModule + "-input"
	onForward = GuardModule + "-forward"
	onOutput  = GuardModule + "-output"
)

// The guards' counters: why a packet was dropped.
const (
	Spoofed = GuardModule + "-spoofed"
	Router  = GuardModule + "-router"
	Forged  = GuardModule + "-forged"
)

// nft's priorities "raw" and "filter".
const (
	raw    = -300
	filter = 0
)

// Guards compiles what protects the overlay from pods, and from hosts that
// are no nodes.
//
// Spoofing: a pod's packet must have a source address that leads back to the
// same device. The pod's own host route is the permission, so nothing has to
// be kept per pod. No pod is a router: it neither announces itself as one nor
// redirects others.
//
// Forged overlay packets: VXLAN has no authentication, so whoever can send
// UDP to a node's VXLAN port can put any packet in front of any pod. Genuine
// ones go from VTEP to VTEP and are never forwarded; that hook comes after
// DNAT, so that no Service or host port can lead to another node there. A
// pod could still reach this node by a Service whose endpoint is the node
// itself, and be given another node's address on the way, so what was
// translated does not arrive either. Genuine packets are spared connection
// tracking; that is no condition, because rules do not begin to act in all
// hooks at the same moment.
//
// A packet that is in the middle of the rules while all of them are removed, by
// another program's flush, still sees rules, but sets without elements. So what
// no peer sent is not what remains, but what a set with every address has: at
// such a moment it matches nothing, and no genuine packet is dropped.
func Guards(s Self, peers []cluster.Node) program.Table {
	t := program.Table{
		Module: GuardModule,
		Sets: []program.Set{
			{Name: peers4, Family: program.IPv4}, {Name: peers6, Family: program.IPv6},
			{Name: self4, Family: program.IPv4}, {Name: self6, Family: program.IPv6},
			{Name: noise6, Family: program.IPv6, Elements: []netip.Prefix{
				netip.MustParsePrefix("::/128"), netip.MustParsePrefix("fe80::/10"),
			}},
			{Name: all4, Family: program.IPv4, Elements: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}},
			{Name: all6, Family: program.IPv6, Elements: []netip.Prefix{netip.MustParsePrefix("::/0")}},
		},
		Chains: []program.Chain{
			{Name: fromPods, Rules: podRules()},
			{Name: genuine, Rules: []program.Rule{
				fromPeer(program.Saddr4, peers4, program.Daddr4, self4, program.Notrack{}),
				fromPeer(program.Saddr6, peers6, program.Daddr6, self6, program.Notrack{}),
			}},
			{Name: arrived, Rules: []program.Rule{
				{Comment: "sent to another port", Statements: []program.Statement{program.Translated{}, program.CountAndDrop(Forged)}},
				fromPeer(program.Saddr4, peers4, program.Daddr4, self4, program.Accept{}),
				fromPeer(program.Saddr6, peers6, program.Daddr6, self6, program.Accept{}),
				fromNoPeer(program.Saddr4, all4),
				fromNoPeer(program.Saddr6, all6),
			}},
			{Name: passing, Rules: []program.Rule{passingRule(program.Daddr4, peers4), passingRule(program.Daddr6, peers6)}},
			{Name: sent, Rules: []program.Rule{sentRule(program.Daddr4, peers4), sentRule(program.Daddr6, peers6)}},
			{Name: GuardModule, Type: "filter", Hook: "prerouting", Priority: raw, Rules: []program.Rule{
				{Statements: []program.Statement{program.LinkGroup(PodLinkGroup), program.Goto(fromPods)}},
				portRule(s.Port, program.Goto(genuine)),
			}},
			{Name: onArrival, Type: "filter", Hook: "input", Priority: filter, Rules: []program.Rule{portRule(s.Port, program.Goto(arrived))}},
			{Name: onForward, Type: "filter", Hook: "forward", Priority: filter, Rules: []program.Rule{portRule(s.Port, program.Goto(passing))}},
			{Name: onOutput, Type: "filter", Hook: "output", Priority: raw, Rules: []program.Rule{portRule(s.Port, program.Goto(sent))}},
		},
	}
	for _, n := range peers {
		t.Sets[family(n.VTEP.Addr)].Add(n.VTEP.Addr)
	}
	t.Sets[2+family(s.Underlay.Addr)].Add(s.Underlay.Addr)
	return t
}

// family is a set's place among the two of a pair.
func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func podRules() []program.Rule {
	const router = "no pod is a router"
	return []program.Rule{
		{Comment: router, Statements: []program.Statement{program.ICMPv6("nd-router-advert"), program.CountAndDrop(Router)}},
		{Comment: router, Statements: []program.Statement{program.ICMPv6("nd-redirect"), program.CountAndDrop(Router)}},
		{Comment: router, Statements: []program.Statement{program.ICMP("redirect"), program.CountAndDrop(Router)}},
		{Comment: "a pod's neighbour discovery, needed by nobody", Statements: []program.Statement{
			program.InSet{Field: program.Saddr6, Set: noise6}, program.Drop{}}},
		{Comment: "from a pod under an address that is not its own", Statements: []program.Statement{
			program.NoWayBack{}, program.CountAndDrop(Spoofed)}},
	}
}

func portRule(port uint16, then program.Statement) program.Rule {
	return program.Rule{Comment: "overlay packets", Statements: []program.Statement{program.UDPPort(port), then}}
}

func fromPeer(saddr program.AddrField, peers string, daddr program.AddrField, self string, then program.Statement) program.Rule {
	return program.Rule{Comment: "from a peer", Statements: []program.Statement{
		program.InSet{Field: saddr, Set: peers}, program.InSet{Field: daddr, Set: self}, then}}
}

func fromNoPeer(saddr program.AddrField, all string) program.Rule {
	return program.Rule{Comment: "an overlay packet that no peer sent", Statements: []program.Statement{
		program.InSet{Field: saddr, Set: all}, program.CountAndDrop(Forged)}}
}

func sentRule(daddr program.AddrField, peers string) program.Rule {
	return program.Rule{Comment: "to a peer", Statements: []program.Statement{
		program.InSet{Field: daddr, Set: peers}, program.Notrack{}}}
}

func passingRule(daddr program.AddrField, peers string) program.Rule {
	return program.Rule{Comment: "never forwarded to a node", Statements: []program.Statement{
		program.InSet{Field: daddr, Set: peers}, program.CountAndDrop(Forged)}}
}
