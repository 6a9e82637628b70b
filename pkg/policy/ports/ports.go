// Package ports is the arithmetic of ports: sets of them, and the numbers
// under which the kernel has such sets. Inputs are ports as rules have them;
// outputs are sets and elements of pkg/program/permit. It refuses names: they
// mean something only together with a pod.
package ports

import (
	"fmt"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
)

// Set is a set of pairs of protocol and port, as disjoint spans in order.
// The pairs are numbered: the ports of TCP, then of UDP, then of SCTP, and
// last one number for all other protocols, which have no ports.
type Set []span

type span struct{ first, last uint32 }

// Protocols are those that have ports, in the order of the numbering.
var Protocols = []policy.Protocol{service.TCP, service.UDP, service.SCTP}

const (
	perProtocol = 1 << 16
	others      = 3 * perProtocol
)

// Everything is all ports of all protocols.
var Everything = Set{{0, others}}

// Of is one entry of a rule; ok is false for one that no packet can
// match, which is left out.
func Of(p policy.Port) (s Set, ok bool) {
	if p.Protocol == 0 {
		return Everything, true
	}
	i := slices.Index(Protocols, p.Protocol)
	if i < 0 || p.First > p.Last {
		return nil, false
	}
	base := uint32(i * perProtocol)
	if p.First == 0 && p.Last == 0 {
		return Set{{base, base + perProtocol - 1}}, true
	}
	return Set{{base + uint32(p.First), base + uint32(p.Last)}}, true
}

// At is the pair that a packet has.
func At(proto policy.Protocol, port uint16) Set {
	i := slices.Index(Protocols, proto)
	if i < 0 {
		return Set{{others, others}}
	}
	n := uint32(i*perProtocol) + uint32(port)
	return Set{{n, n}}
}

// Union is every pair of any of the sets.
func Union(sets ...Set) Set {
	all := slices.Concat(sets...)
	slices.SortFunc(all, func(a, b span) int { return int(a.first) - int(b.first) })
	var out Set
	for _, s := range all {
		if n := len(out); n > 0 && s.first <= out[n-1].last+1 {
			out[n-1].last = max(out[n-1].last, s.last)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// Minus is every pair of s that is not in t.
func (s Set) Minus(t Set) Set {
	var out Set
	for _, a := range s {
		first := a.first
		for _, b := range t {
			if b.last < first || b.first > a.last {
				continue
			}
			if b.first > first {
				out = append(out, span{first, b.first - 1})
			}
			first = b.last + 1
		}
		if first <= a.last {
			out = append(out, span{first, a.last})
		}
	}
	return out
}

// And is every pair that is in both.
func (s Set) And(t Set) Set { return s.Minus(s.Minus(t)) }

// Key is the same for equal sets only.
func (s Set) Key() string {
	var b strings.Builder
	for _, p := range s {
		fmt.Fprintf(&b, "%x-%x ", p.first, p.last)
	}
	return b.String()
}
