// Package allocator says which addresses a range gives, and in which order.
// Inputs are ranges as the configuration states them and the address given
// last; output is a sequence of candidates. It refuses ranges that lie
// outside their subnet, and knows nothing of what is taken.
package allocator

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
)

// Range is a run of addresses of one subnet.
type Range struct {
	Subnet netip.Prefix
	// First and Last are inclusive.
	First, Last netip.Addr
	// Gateway is never given.
	Gateway netip.Addr
}

// NewRange fills in what is not given (a zero Addr) as upstream's host-local
// does: the gateway is the subnet's second address, and the run ends with
// the last address (IPv4: the last before the broadcast address). It begins
// with the third: the first is the node's own on the overlay, and the second
// stays free for a bridge of the network that was here before.
func NewRange(subnet netip.Prefix, first, last, gateway netip.Addr) (Range, error) {
	switch {
	case !subnet.IsValid():
		return Range{}, errors.New("subnet: missing; give a prefix such as 10.244.1.0/24")
	case subnet.Addr().Is4In6():
		return Range{}, fmt.Errorf("subnet: %s is IPv4 written as IPv6; write it as IPv4", subnet)
	case subnet != subnet.Masked():
		return Range{}, fmt.Errorf("subnet: %s has host bits set; write %s", subnet, subnet.Masked())
	case subnet.Bits() > subnet.Addr().BitLen()-2:
		return Range{}, fmt.Errorf("subnet: %s is too small to hold a pod; use /%d or larger", subnet, subnet.Addr().BitLen()-2)
	}
	r := Range{Subnet: subnet, First: first, Last: last, Gateway: gateway}
	if !gateway.IsValid() {
		r.Gateway = subnet.Addr().Next()
	}
	if !first.IsValid() {
		r.First = subnet.Addr().Next().Next()
	} else if !subnet.Contains(first) {
		return Range{}, fmt.Errorf("rangeStart: %s is not in subnet %s", first, subnet)
	}
	if !last.IsValid() {
		r.Last = highest(subnet)
	} else if !subnet.Contains(last) {
		return Range{}, fmt.Errorf("rangeEnd: %s is not in subnet %s", last, subnet)
	}
	if r.Last.Less(r.First) {
		return Range{}, fmt.Errorf("rangeEnd: %s comes before rangeStart %s", r.Last, r.First)
	}
	return r, nil
}

// Gives reports whether a may be given to a pod: inside the run, and neither
// the subnet's own address, its IPv4 broadcast nor the gateway.
func (r Range) Gives(a netip.Addr) bool {
	return r.holds(a) && a != r.Subnet.Addr() && a != r.Gateway &&
		!(a.Is4() && a == highest(r.Subnet))
}

func (r Range) holds(a netip.Addr) bool {
	return a.BitLen() == r.First.BitLen() && !a.Less(r.First) && !r.Last.Less(a)
}

func (r Range) overlaps(o Range) bool {
	return r.holds(o.First) || o.holds(r.First)
}

func (r Range) String() string { return fmt.Sprintf("%s-%s", r.First, r.Last) }

// Set is ranges of one family: an attachment gets one address of them.
type Set []Range

// Validate refuses sets that mix families or hold an address twice.
func (s Set) Validate() error {
	if len(s) == 0 {
		return errors.New("holds no range; give at least one {\"subnet\": ...}")
	}
	for i, r := range s {
		if r.First.BitLen() != s[0].First.BitLen() {
			return fmt.Errorf("mixes IPv4 and IPv6 (%s and %s); an address of each needs two range sets: [[IPv4],[IPv6]]", s[0].Subnet, r.Subnet)
		}
		for _, o := range s[:i] {
			if r.overlaps(o) {
				return fmt.Errorf("%s overlaps with %s; each address may stand in one range only", r, o)
			}
		}
	}
	return nil
}

// Overlaps reports whether an address stands in both s and o.
func (s Set) Overlaps(o Set) bool {
	for _, a := range s {
		for _, b := range o {
			if a.overlaps(b) {
				return true
			}
		}
	}
	return false
}

// Gives reports whether a range of s gives a.
func (s Set) Gives(a netip.Addr) bool {
	for _, r := range s {
		if r.Gives(a) {
			return true
		}
	}
	return false
}

// After is every address of s once, round robin from the one after last: a
// pod that restarts in a loop does not get its old address back while others
// still talk to it. A last that is not of s (the ranges changed) only loses
// the place.
func (s Set) After(last netip.Addr) iter.Seq[netip.Addr] {
	at := 0
	for i, r := range s {
		if r.holds(last) {
			at = i
		}
	}
	return func(yield func(netip.Addr) bool) {
		from := s[at].First
		if s[at].holds(last) {
			from = last.Next()
		}
		if !s[at].each(from, s[at].Last, yield) {
			return
		}
		for i := 1; i < len(s); i++ {
			r := s[(at+i)%len(s)]
			if !r.each(r.First, r.Last, yield) {
				return
			}
		}
		if s[at].holds(last) {
			s[at].each(s[at].First, last, yield)
		}
	}
}

// each yields what r gives from first to last. A first of no value, or past
// last, is an empty run.
func (r Range) each(first, last netip.Addr, yield func(netip.Addr) bool) bool {
	for a := first; a.IsValid() && !last.Less(a); a = a.Next() {
		if r.Gives(a) && !yield(a) {
			return false
		}
	}
	return true
}

// highest is the last address of p, in IPv4 its broadcast address.
func highest(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
