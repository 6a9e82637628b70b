// Package peers is about the other ends of connections: the groups that rules
// name, and the classes of addresses that are in the same groups. Inputs are
// lists of peers as rules have them, pods, nodes and addresses; outputs are
// numbers for the kernel. It refuses to know what a rule then permits.
package peers

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/program/permit"
)

// Group is a list of peers as some rule has it. Rules whose lists say the
// same share one.
type Group struct {
	ID    int
	terms []term
	// Port, if set, leaves those pods for which a named port is this number.
	Port *policy.NamedPort
	// Blocks are the addresses of ipBlocks, in order and disjoint.
	Blocks []permit.Range
	// Users counts the rules of profiles.
	Users int
}

// term is a set of pods or nodes.
type term struct {
	namespace  string          // if set, pods of this one
	namespaces policy.Selector // otherwise of all that match
	pods       policy.Selector
	nodes      *policy.Selector // or no pods but nodes
}

// Key is the same text for lists that say the same. namespace is the
// policy's own.
func Key(namespace string, peers []policy.Peer) string {
	parts := make([]string, 0, len(peers))
	for _, p := range peers {
		var b strings.Builder
		switch {
		case p.Unknown:
			continue
		case p.Block.IsValid():
			fmt.Fprintf(&b, "block %s", p.Block.Masked())
			for _, e := range slices.SortedFunc(slices.Values(p.Except), comparePrefixes) {
				fmt.Fprintf(&b, " except %s", e.Masked())
			}
		case p.Nodes != nil:
			fmt.Fprintf(&b, "nodes %s", canonical(*p.Nodes))
		case p.Namespaces == nil:
			fmt.Fprintf(&b, "pods %s in %q", optional(p.Pods), namespace)
		default:
			fmt.Fprintf(&b, "pods %s where %s", optional(p.Pods), canonical(*p.Namespaces))
		}
		parts = append(parts, b.String())
	}
	slices.Sort(parts)
	return strings.Join(slices.Compact(parts), "; ")
}

func optional(s *policy.Selector) string {
	if s == nil {
		return ""
	}
	return canonical(*s)
}

func comparePrefixes(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// NewGroup makes the group of a list of peers.
func NewGroup(namespace string, peers []policy.Peer, port *policy.NamedPort) *Group {
	g := &Group{Port: port}
	for _, p := range peers {
		switch {
		case p.Unknown:
		case p.Block.IsValid():
			g.Blocks = append(g.Blocks, blockRanges(p.Block, p.Except)...)
		case p.Nodes != nil:
			g.terms = append(g.terms, term{nodes: p.Nodes})
		default:
			t := term{}
			if p.Pods != nil {
				t.pods = *p.Pods
			}
			if p.Namespaces != nil {
				t.namespaces = *p.Namespaces
			} else {
				t.namespace = namespace
			}
			g.terms = append(g.terms, t)
		}
	}
	g.Blocks = joined(g.Blocks)
	return g
}

// HasPod reports whether a pod is in the group by its labels.
func (g *Group) HasPod(p policy.Pod, namespace map[string]string) bool {
	for _, t := range g.terms {
		if t.nodes != nil || t.namespace != "" && t.namespace != p.Namespace {
			continue
		}
		if (t.namespace != "" || Matches(t.namespaces, namespace)) && Matches(t.pods, p.Labels) {
			return true
		}
	}
	return false
}

// Namespaces are those whose pods the group can have; "" is any.
func (g *Group) Namespaces() []string {
	var names []string
	for _, t := range g.terms {
		if t.nodes == nil {
			names = append(names, t.namespace)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// HasPort reports whether a pod has the group's named port, if it has one.
func (g *Group) HasPort(p policy.Pod) bool { return g.Port == nil || slices.Contains(p.Ports, *g.Port) }

// HasNode reports whether a node is in the group. A node has no named ports.
func (g *Group) HasNode(n policy.Node) bool {
	return g.Port == nil && slices.ContainsFunc(g.terms, func(t term) bool { return t.nodes != nil && Matches(*t.nodes, n.Labels) })
}

// HasAddress reports whether an address is in one of the group's blocks.
func (g *Group) HasAddress(a netip.Addr) bool {
	i, found := slices.BinarySearchFunc(g.Blocks, a, func(r permit.Range, a netip.Addr) int { return r.First.Compare(a) })
	return found || i > 0 && g.Blocks[i-1].Contains(a)
}

// blockRanges is an ipBlock without its exceptions.
func blockRanges(block netip.Prefix, except []netip.Prefix) (out []permit.Range) {
	holes := make([]permit.Range, len(except))
	for i, e := range except {
		holes[i] = rangeOf(e)
	}
	rest := rangeOf(block)
	for _, hole := range joined(holes) {
		if hole.Last.Compare(rest.First) < 0 || rest.Last.Compare(hole.First) < 0 {
			continue
		}
		if rest.First.Compare(hole.First) < 0 {
			out = append(out, permit.Range{First: rest.First, Last: hole.First.Prev()})
		}
		if rest.Last.Compare(hole.Last) <= 0 {
			return out
		}
		rest.First = hole.Last.Next()
	}
	return append(out, rest)
}

func rangeOf(p netip.Prefix) permit.Range {
	p = p.Masked()
	last := p.Addr().AsSlice()
	for i := p.Bits(); i < p.Addr().BitLen(); i++ {
		last[i/8] |= 0x80 >> (i % 8)
	}
	end, _ := netip.AddrFromSlice(last)
	return permit.Range{First: p.Addr(), Last: end}
}

// joined sorts ranges and joins those that touch. IPv4 comes before IPv6.
func joined(list []permit.Range) []permit.Range {
	slices.SortFunc(list, func(a, b permit.Range) int { return a.First.Compare(b.First) })
	var out []permit.Range
	for _, r := range list {
		if n := len(out); n > 0 && out[n-1].First.BitLen() == r.First.BitLen() &&
			(!out[n-1].Last.Next().IsValid() || r.First.Compare(out[n-1].Last.Next()) <= 0) {
			if r.Last.Compare(out[n-1].Last) > 0 {
				out[n-1].Last = r.Last
			}
			continue
		}
		out = append(out, r)
	}
	return out
}
