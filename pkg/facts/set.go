package facts

import (
	"net/netip"
	"slices"
)

// SetMatch is a field of a packet that a rule looks up in a set. Of Addrs and Numbers
// one is used, as the field is one or the other.
type SetMatch struct {
	Field string `json:"field"` // saddr, daddr, sport, dport or protocol
	Not   bool   `json:"not,omitempty"`
	// Name is empty for a set that only this rule has.
	Name    string      `json:"name,omitempty"`
	Addrs   []AddrRange `json:"addrs,omitempty"`
	Numbers []NumMatch  `json:"numbers,omitempty"`
}

// AddrRange is of one family, with both its ends.
type AddrRange struct {
	First netip.Addr `json:"first"`
	Last  netip.Addr `json:"last"`
}

// matches is false only where the first packet of the flow cannot match, as it is of
// other conditions of rules.
func (m SetMatch) matches(p Packet) bool {
	switch m.Field {
	case "saddr":
		return !p.Src.IsValid() || m.addr(p.Src)
	case "daddr":
		return m.addr(p.To.Addr())
	case "protocol":
		return m.number(uint16(p.Proto))
	case "dport":
		return hasPorts(p.Proto) && m.number(p.To.Port())
	}
	return hasPorts(p.Proto) && p.Sport != 0 && m.number(p.Sport)
}

func (m SetMatch) addr(a netip.Addr) bool {
	return slices.ContainsFunc(m.Addrs, func(r AddrRange) bool {
		return r.First.Is4() == a.Is4() && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
	}) != m.Not
}

func (m SetMatch) number(v uint16) bool {
	return slices.ContainsFunc(m.Numbers, func(n NumMatch) bool { return n.has(v) }) != m.Not
}

// String is close to what nft prints.
func (m SetMatch) String() string {
	text := m.Field + " "
	if m.Not {
		text += "!= "
	}
	if m.Name == "" {
		return text + "{ ... }"
	}
	return text + "@" + m.Name
}
