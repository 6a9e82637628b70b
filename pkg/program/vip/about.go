package vip

import (
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/program/elements"
)

// About is the part of p that decides about packets to some addresses, and
// what is said of the addresses themselves.
func (p Program) About(addrs []netip.Addr) Program {
	out := New()
	has := func(a netip.Addr) bool { return slices.Contains(addrs, a) }
	groups := map[uint32]bool{}
	for _, m := range []struct{ from, to map[Front]Value }{{p.Frontends, out.Frontends}, {p.Outside, out.Outside}} {
		for f, v := range m.from {
			if has(f.Addr) {
				m.to[f] = v
				groups[v.Group()] = groups[v.Group()] || v.Count() > 0
			}
		}
	}
	for s, to := range p.Endpoints {
		if groups[s.Group] {
			out.Endpoints[s] = to
			if _, here := p.Hairpins[to.Addr()]; here {
				out.Hairpins[to.Addr()] = struct{}{}
			}
		}
	}
	elements.Keep(out.Timeouts, p.Timeouts, func(f Front) bool { return has(f.Addr) })
	elements.Keep(out.Fenced, p.Fenced, func(f Front) bool { return has(f.Addr) })
	elements.Keep(out.Sources, p.Sources, func(s Source) bool { return has(s.Addr) })
	elements.Keep(out.Addresses, p.Addresses, has)
	elements.Keep(out.Hairpins, p.Hairpins, has)
	elements.Keep(out.Ranges, p.Ranges, func(r netip.Prefix) bool { return slices.ContainsFunc(addrs, r.Contains) })
	return out
}
