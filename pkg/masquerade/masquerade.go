// Package masquerade compiles which packets leave the cluster under the
// node's address. Inputs are this node's pod ranges and every destination
// that must see the pods' own addresses; the output is the program of a few
// static rules and four sets. It refuses nothing: ranges were validated
// where they came from.
package masquerade

import (
	"cmp"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/program"
)

// Module is this package's part of the nftables table.
const Module = "masquerade"

// Names of sets and chains. "Own" are the pods whose packets are looked at,
// "near" the destinations that see them as they are.
const (
	own4, own6   = Module + "-own4", Module + "-own6"
	near4, near6 = Module + "-near4", Module + "-near6"
	out          = Module + "-out"
)

// natSource is nft's priority "srcnat".
const natSource = 100

// portsBeside are the source ports of masqueraded packets: the larger part of
// those that are not below 1024, on one side of the overlay's port. A reply to
// that port of a node would look like a forged overlay packet.
func portsBeside(overlay uint16) program.Masquerade {
	const unprivileged, highest = 1024, 65535
	if overlay <= (unprivileged+highest)/2 {
		return program.Masquerade{Low: max(overlay+1, unprivileged), High: highest}
	}
	return program.Masquerade{Low: unprivileged, High: overlay - 1}
}

// Compile makes the program. own are this node's pod ranges; near are the
// pod ranges of the cluster and what the administrator excluded; port is the
// overlay's.
func Compile(own, near []netip.Prefix, port uint16) program.Table {
	// Multicast is never masqueraded: nothing that listens could answer.
	near = append([]netip.Prefix{
		netip.MustParsePrefix("224.0.0.0/4"),
		netip.MustParsePrefix("ff00::/8"),
	}, near...)
	return program.Table{
		Module: Module,
		Sets: []program.Set{
			set(own4, program.IPv4, own), set(own6, program.IPv6, own),
			set(near4, program.IPv4, near), set(near6, program.IPv6, near),
		},
		Chains: []program.Chain{
			{Name: out, Rules: outRules(portsBeside(port))},
			{Name: Module, Type: "nat", Hook: "postrouting", Priority: natSource, Rules: []program.Rule{
				leaves(program.Saddr4, own4, program.Daddr4, near4),
				leaves(program.Saddr6, own6, program.Daddr6, near6),
			}},
		},
	}
}

// leaves looks last at what is there: a packet that is in the middle of the rules
// while all of them are removed sees sets without elements.
func leaves(saddr program.AddrField, own string, daddr program.AddrField, near string) program.Rule {
	return program.Rule{
		Comment: "from a pod of this node to outside the cluster",
		Statements: []program.Statement{
			program.InSet{Field: daddr, Not: true, Set: near},
			program.InSet{Field: saddr, Set: own},
			program.Goto(out),
		},
	}
}

func outRules(ports program.Masquerade) []program.Rule {
	const why = "never the overlay's port"
	return []program.Rule{
		{Comment: why, Statements: []program.Statement{program.L4Proto("tcp"), ports}},
		{Comment: why, Statements: []program.Statement{program.L4Proto("udp"), ports}},
		{Comment: "protocols without ports", Statements: []program.Statement{program.Masquerade{}}},
	}
}

// set keeps the prefixes of one family that no other prefix contains: the
// kernel refuses a set whose intervals overlap.
func set(name string, family program.Family, prefixes []netip.Prefix) program.Set {
	list := make([]netip.Prefix, 0, len(prefixes))
	for _, p := range prefixes {
		if p.Addr().Is4() == (family == program.IPv4) {
			list = append(list, p.Masked())
		}
	}
	slices.SortFunc(list, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	s := program.Set{Name: name, Family: family, Elements: list[:0]}
	for _, p := range list {
		if n := len(s.Elements); n > 0 && s.Elements[n-1].Overlaps(p) {
			continue
		}
		s.Elements = append(s.Elements, p)
	}
	return s
}
