package permit

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/elements"
)

// Keys of maps are texts in JSON: the ones that String writes, but for the
// number of a set of ports, whose text is for people.

// MarshalText implements encoding.TextMarshaler.
func (p Pair) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (p *Pair) UnmarshalText(text []byte) error {
	parts, err := elements.Split(text, 2)
	if err != nil {
		return err
	}
	if p.Pod, err = netip.ParseAddr(parts[0]); err != nil {
		return err
	}
	class, err := elements.ParseClassID(parts[1])
	p.Class = Class(class)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (s Span) MarshalText() ([]byte, error) {
	return fmt.Appendf(nil, "%d . %s . %d-%d", uint32(s.Ports), s.Proto, s.First, s.Last), nil
}

// UnmarshalText reads what MarshalText writes.
func (s *Span) UnmarshalText(text []byte) error {
	parts, err := elements.Split(text, 3)
	if err != nil {
		return err
	}
	ports, err := strconv.ParseUint(parts[0], 10, 32)
	if err != nil {
		return err
	}
	s.Ports = Ports(ports)
	if s.Proto, err = service.ParseProtocol(parts[1]); err != nil {
		return err
	}
	_, err = fmt.Sscanf(parts[2], "%d-%d", &s.First, &s.Last)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (r *Range) UnmarshalText(text []byte) error {
	first, last, ok := strings.Cut(string(text), "-")
	if !ok {
		return fmt.Errorf("%q is no range of addresses", text)
	}
	var err error
	if r.First, err = netip.ParseAddr(first); err != nil {
		return err
	}
	r.Last, err = netip.ParseAddr(last)
	return err
}

// About is the part of p that decides about packets between some addresses.
func (p Program) About(addrs []netip.Addr) Program {
	out := New()
	has := func(a netip.Addr) bool { return slices.Contains(addrs, a) }
	classes := map[Class]bool{0: true}
	elements.Keep(out.Senders, p.Senders, has)
	elements.Keep(out.Receivers, p.Receivers, has)
	elements.Keep(out.Loops, p.Loops, has)
	elements.Keep(out.Peers, p.Peers, has)
	elements.Keep(out.Ranges, p.Ranges, func(r Range) bool { return slices.ContainsFunc(addrs, r.Contains) })
	for _, c := range out.Peers {
		classes[c] = true
	}
	for _, c := range out.Ranges {
		classes[c] = true
	}
	ports := map[Ports]bool{}
	pairs := func(to, from map[Pair]Ports) {
		elements.Keep(to, from, func(p Pair) bool { return has(p.Pod) && classes[p.Class] })
		for _, v := range to {
			ports[v] = true
		}
	}
	pairs(out.Egress, p.Egress)
	pairs(out.Ingress, p.Ingress)
	elements.Keep(out.Ports, p.Ports, func(s Span) bool { return ports[s.Ports] })
	return out
}
