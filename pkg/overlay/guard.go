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

// Names of the guards' sets and chains.
const (
	nodes4, nodes6 = GuardModule + "-nodes4", GuardModule + "-nodes6"
	noise6         = GuardModule + "-noise6"
	spoofed        = GuardModule + "-spoofed"
	forged         = GuardModule + "-forged"
)

// nft's priorities "raw" and "filter".
const (
	raw    = -300
	filter = 0
)

// Guards compiles what protects the overlay from pods.
//
// Spoofing: a pod's packet must have a source address that leads back to the
// same device. The pod's own host route is the permission, so nothing has to
// be kept per pod.
//
// Forged overlay packets: VXLAN has no authentication, so whoever can send
// UDP to a node's VXLAN port can put any packet in front of any pod. Genuine
// ones are sent and received by nodes and never forwarded; this hook comes
// after DNAT, so that no Service or host port can lead there either.
func Guards(s Self, peers []cluster.Node) program.Table {
	t := program.Table{
		Module: GuardModule,
		Sets: []program.Set{
			{Name: nodes4, Family: program.IPv4}, {Name: nodes6, Family: program.IPv6},
			{Name: noise6, Family: program.IPv6, Elements: []netip.Prefix{
				netip.MustParsePrefix("::/128"), netip.MustParsePrefix("fe80::/10"),
			}},
		},
		Chains: []program.Chain{
			{Name: spoofed, Type: "filter", Hook: "prerouting", Priority: raw, Rules: spoofRules()},
			{Name: forged, Type: "filter", Hook: "forward", Priority: filter, Rules: []program.Rule{
				forgedRule(s.Port, program.Daddr4, nodes4), forgedRule(s.Port, program.Daddr6, nodes6),
			}},
		},
	}
	for _, n := range append([]cluster.Node{s.Node()}, peers...) {
		set := &t.Sets[0]
		if n.VTEP.Addr.Is6() {
			set = &t.Sets[1]
		}
		set.Elements = append(set.Elements, netip.PrefixFrom(n.VTEP.Addr, n.VTEP.Addr.BitLen()))
	}
	return t
}

func spoofRules() []program.Rule {
	return []program.Rule{
		{Comment: "a pod's neighbour discovery, needed by nobody", Statements: []program.Statement{
			program.LinkGroup(PodLinkGroup), program.InSet{Field: program.Saddr6, Set: noise6}, program.Drop{}}},
		{Comment: "from a pod under an address that is not its own", Statements: []program.Statement{
			program.LinkGroup(PodLinkGroup), program.NoWayBack{}, program.CountAndDrop{}}},
	}
}

func forgedRule(port uint16, daddr program.AddrField, nodes string) program.Rule {
	return program.Rule{
		Comment: "overlay packets are never forwarded to a node",
		Statements: []program.Statement{
			program.InSet{Field: daddr, Set: nodes}, program.UDPPort(port), program.CountAndDrop{}},
	}
}
