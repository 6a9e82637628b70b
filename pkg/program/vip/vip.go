// Package vip says what the kernel should hold so that Services work: the
// elements of a constant number of maps and sets, and the chains that look
// into them. Inputs are a compiler's decisions; outputs are values that an
// applier makes true and that a walk can follow. It refuses to know Services,
// clusters or netlink.
//
// A new connection is looked up by destination, protocol and port in Outside
// (if it did not start on this node) and Frontends. What is found is a Value:
// a group of endpoints and how many they are, or a refusal. A chain for that
// number draws one of the group's slots in Endpoints. Where a client stays
// with its endpoint, the choice is remembered in a map of its own.
package vip

import (
	"fmt"
	"net/netip"
	"strings"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/elements"
)

// Front is where a connection comes in.
type Front struct {
	Addr  netip.Addr
	Proto service.Protocol
	Port  uint16
}

func (f Front) String() string { return fmt.Sprintf("%s . %s . %d", f.Addr, f.Proto, f.Port) }

// Slot is one endpoint of a group.
type Slot struct{ Group, Index uint32 }

func (s Slot) String() string { return fmt.Sprintf("%s . %d", elements.ClassID(s.Group), s.Index) }

// Source is a range of clients that may use a fenced front.
type Source struct {
	Front
	Clients netip.Prefix
}

func (s Source) String() string { return fmt.Sprintf("%s . %s", s.Front, s.Clients) }

// Program is the elements. A map whose values mean nothing is a set.
type Program struct {
	// Frontends is how a connection from this node goes on, whether from a
	// pod or from one of the node's processes, and any that Outside lacks.
	Frontends map[Front]Value
	// Outside overrides Frontends for connections from elsewhere.
	Outside   map[Front]Value
	Endpoints map[Slot]netip.AddrPort
	// Timeouts has, in seconds, how long clients stay with an endpoint.
	Timeouts map[Front]uint32
	// Fenced fronts are for the clients in Sources only.
	Fenced  map[Front]struct{}
	Sources map[Source]struct{}
	// Addresses are answered "port unreachable" on ports without a front.
	Addresses map[netip.Addr]struct{}
	// Ranges hold nothing but addresses of Services: the rest is dropped.
	Ranges map[netip.Prefix]struct{}
	// Hairpins are endpoints on this node: what comes from and goes to the
	// same one is masqueraded, or it would answer itself directly.
	Hairpins map[netip.Addr]struct{}
}

// New returns a program without elements.
func New() Program {
	return Program{
		Frontends: map[Front]Value{},
		Outside:   map[Front]Value{},
		Endpoints: map[Slot]netip.AddrPort{},
		Timeouts:  map[Front]uint32{},
		Fenced:    map[Front]struct{}{},
		Sources:   map[Source]struct{}{},
		Addresses: map[netip.Addr]struct{}{},
		Ranges:    map[netip.Prefix]struct{}{},
		Hairpins:  map[netip.Addr]struct{}{},
	}
}

// Len is the number of elements.
func (p Program) Len() int {
	return len(p.Frontends) + len(p.Outside) + len(p.Endpoints) + len(p.Timeouts) + len(p.Fenced) +
		len(p.Sources) + len(p.Addresses) + len(p.Ranges) + len(p.Hairpins)
}

// String lists the elements, a line each, sorted within their map.
func (p Program) String() string {
	var b strings.Builder
	elements.Write(&b, "frontends", p.Frontends)
	elements.Write(&b, "outside", p.Outside)
	elements.Write(&b, "endpoints", p.Endpoints)
	elements.Write(&b, "timeouts", p.Timeouts)
	elements.Write(&b, "fenced", p.Fenced)
	elements.Write(&b, "sources", p.Sources)
	elements.Write(&b, "addresses", p.Addresses)
	elements.Write(&b, "ranges", p.Ranges)
	elements.Write(&b, "hairpins", p.Hairpins)
	return b.String()
}
