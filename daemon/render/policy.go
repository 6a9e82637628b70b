package render

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/program/permit"
)

// verdicts are a program of policies, a line for each element. Each daemon that
// starts numbers classes of addresses and sets of ports anew, so lines have what
// the numbers stand for: a class the least of its addresses, a set its ports.
func verdicts(p permit.Program) (list []string) {
	classes, ports := classes(p), ports(p)
	for _, set := range []struct {
		name  string
		addrs map[netip.Addr]struct{}
	}{{"senders", p.Senders}, {"receivers", p.Receivers}, {"loops", p.Loops}} {
		for _, a := range slices.SortedFunc(maps.Keys(set.addrs), netip.Addr.Compare) {
			list = append(list, fmt.Sprintf("%s %s", set.name, a))
		}
	}
	var rest []string
	for a, c := range p.Peers {
		rest = append(rest, fmt.Sprintf("peers %s : like %s", a, classes[c]))
	}
	for r, c := range p.Ranges {
		rest = append(rest, fmt.Sprintf("ranges %s : like %s", r, classes[c]))
	}
	for name, pairs := range map[string]map[permit.Pair]permit.Ports{"egress": p.Egress, "ingress": p.Ingress} {
		for pair, n := range pairs {
			rest = append(rest, fmt.Sprintf("%s %s . %s : %s", name, pair.Pod, classes[pair.Class], ports(n)))
		}
	}
	slices.Sort(rest)
	return append(list, rest...)
}

// classes names each class after the least of its addresses.
func classes(p permit.Program) map[permit.Class]string {
	least := map[permit.Class]netip.Addr{}
	put := func(a netip.Addr, c permit.Class) {
		if had, found := least[c]; !found || a.Less(had) {
			least[c] = a
		}
	}
	for a, c := range p.Peers {
		put(a, c)
	}
	for r, c := range p.Ranges {
		put(r.First, c)
	}
	names := map[permit.Class]string{}
	for c, a := range least {
		names[c] = a.String()
	}
	names[0] = "others"
	return names
}

// ports writes a set of ports by what is in it.
func ports(p permit.Program) func(permit.Ports) string {
	sets := map[permit.Ports][]string{}
	for _, s := range slices.SortedFunc(maps.Keys(p.Ports), func(a, b permit.Span) int {
		return cmp.Or(cmp.Compare(a.Ports, b.Ports), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.First, b.First))
	}) {
		sets[s.Ports] = append(sets[s.Ports], fmt.Sprintf("%s %d-%d", s.Proto, s.First, s.Last))
	}
	return func(n permit.Ports) string {
		if n == permit.Nothing || n.IsEverything() {
			return n.String()
		}
		list := sets[n]
		if n.HasOthers() {
			list = append(slices.Clone(list), "protocols without ports")
		}
		return strings.Join(list, ", ")
	}
}
