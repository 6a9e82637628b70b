// Package permit says what the kernel of one node should hold so that
// policies hold: the elements of a constant number of maps and sets, and the
// chains that look into them. Inputs are a compiler's decisions; outputs are
// values that an applier makes true and that a walk can follow. It refuses to
// know policies, labels or netlink.
//
// Every packet that is forwarded from or to an isolated pod of this node is
// decided by itself, a reply under the reversed addresses: nothing is
// remembered, so a change is in force for existing connections too. The
// address of the other end has a class; the pod and that class have a number
// of a set of ports; and the set has the ports.
package permit

import (
	"fmt"
	"net/netip"
	"strings"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/elements"
)

// Class is what addresses have in common that the policies of this node's
// pods cannot tell apart. 0 is the class of all addresses that have no other.
type Class uint32

func (c Class) String() string { return elements.ClassID(uint32(c)) }

// Pair is an isolated pod and a class of others.
type Pair struct {
	Pod   netip.Addr
	Class Class
}

func (p Pair) String() string { return fmt.Sprintf("%s . %s", p.Pod, p.Class) }

// Ports is the number of a set of ports, and in two bits what needs no set.
type Ports uint32

// Ports that are no number of a set.
const (
	// Nothing permits no packet.
	Nothing Ports = 1
	// Everything permits every packet.
	Everything Ports = everythingBit | 2
	// FirstPorts is the lowest number of a set.
	FirstPorts = 16
	// MaxPorts is the highest.
	MaxPorts = othersBit - 1
)

const (
	everythingBit = 1 << 31
	othersBit     = 1 << 30
)

// WithOthers also permits protocols that have no ports, such as ICMP.
func (p Ports) WithOthers() Ports { return p | othersBit }

// HasOthers reports whether protocols without ports are permitted.
func (p Ports) HasOthers() bool { return p&(othersBit|everythingBit) != 0 }

// IsEverything reports whether every packet is permitted.
func (p Ports) IsEverything() bool { return p&everythingBit != 0 }

func (p Ports) String() string {
	switch {
	case p == Nothing:
		return "nothing"
	case p.IsEverything():
		return "everything"
	}
	return elements.ClassID(uint32(p))
}

// Span is a part of a set of ports.
type Span struct {
	Ports       Ports
	Proto       service.Protocol
	First, Last uint16
}

func (s Span) String() string {
	if s.First == s.Last {
		return fmt.Sprintf("%s . %s . %d", s.Ports, s.Proto, s.First)
	}
	return fmt.Sprintf("%s . %s . %d-%d", s.Ports, s.Proto, s.First, s.Last)
}

// Range is addresses of one family from First to Last.
type Range struct{ First, Last netip.Addr }

func (r Range) String() string { return fmt.Sprintf("%s-%s", r.First, r.Last) }

// Contains reports whether an address is in the range.
func (r Range) Contains(a netip.Addr) bool {
	return a.BitLen() == r.First.BitLen() && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// Program is the elements. A map whose values mean nothing is a set.
type Program struct {
	// Senders and Receivers are pods of this node that send, or receive,
	// only what is permitted. Loops are all of these: what a pod sends to
	// itself is not for policies to decide.
	Senders, Receivers, Loops map[netip.Addr]struct{}
	// Peers have a class each; Ranges has that of addresses not in Peers.
	Peers  map[netip.Addr]Class
	Ranges map[Range]Class
	// Egress and Ingress have the ports that a sender may send to, and on
	// which a receiver may be reached. What a pair lacks, the pair with
	// class 0 has; what that lacks is not permitted.
	Egress, Ingress map[Pair]Ports
	Ports           map[Span]struct{}
}

// New returns a program without elements.
func New() Program {
	return Program{
		Senders:   map[netip.Addr]struct{}{},
		Receivers: map[netip.Addr]struct{}{},
		Loops:     map[netip.Addr]struct{}{},
		Peers:     map[netip.Addr]Class{},
		Ranges:    map[Range]Class{},
		Egress:    map[Pair]Ports{},
		Ingress:   map[Pair]Ports{},
		Ports:     map[Span]struct{}{},
	}
}

// Len is the number of elements.
func (p Program) Len() int {
	return len(p.Senders) + len(p.Receivers) + len(p.Loops) + len(p.Peers) + len(p.Ranges) +
		len(p.Egress) + len(p.Ingress) + len(p.Ports)
}

// String lists the elements, a line each, sorted within their map.
func (p Program) String() string {
	var b strings.Builder
	elements.Write(&b, "senders", p.Senders)
	elements.Write(&b, "receivers", p.Receivers)
	elements.Write(&b, "loops", p.Loops)
	elements.Write(&b, "peers", p.Peers)
	elements.Write(&b, "ranges", p.Ranges)
	elements.Write(&b, "egress", p.Egress)
	elements.Write(&b, "ingress", p.Ingress)
	elements.Write(&b, "ports", p.Ports)
	return b.String()
}

// Change leads from one program to another. An element with another value is
// in both parts: the old one goes and the new one comes in one transaction.
type Change struct{ Delete, Put Program }

// Empty reports that a change changes nothing.
func (c Change) Empty() bool { return c.Delete.Len()+c.Put.Len() == 0 }

// Diff returns the change from one program to another. Nobody must change the
// other before it is made: parts of the change may be parts of it.
func Diff(from, to Program) (c Change) {
	c.Delete.Senders, c.Put.Senders = elements.Diff(from.Senders, to.Senders)
	c.Delete.Receivers, c.Put.Receivers = elements.Diff(from.Receivers, to.Receivers)
	c.Delete.Loops, c.Put.Loops = elements.Diff(from.Loops, to.Loops)
	c.Delete.Peers, c.Put.Peers = elements.Diff(from.Peers, to.Peers)
	c.Delete.Ranges, c.Put.Ranges = elements.Diff(from.Ranges, to.Ranges)
	c.Delete.Egress, c.Put.Egress = elements.Diff(from.Egress, to.Egress)
	c.Delete.Ingress, c.Put.Ingress = elements.Diff(from.Ingress, to.Ingress)
	c.Delete.Ports, c.Put.Ports = elements.Diff(from.Ports, to.Ports)
	return c
}

// Apply makes the change in p.
func (c Change) Apply(p Program) {
	elements.Apply(p.Senders, c.Delete.Senders, c.Put.Senders)
	elements.Apply(p.Receivers, c.Delete.Receivers, c.Put.Receivers)
	elements.Apply(p.Loops, c.Delete.Loops, c.Put.Loops)
	elements.Apply(p.Peers, c.Delete.Peers, c.Put.Peers)
	elements.Apply(p.Ranges, c.Delete.Ranges, c.Put.Ranges)
	elements.Apply(p.Egress, c.Delete.Egress, c.Put.Egress)
	elements.Apply(p.Ingress, c.Delete.Ingress, c.Put.Ingress)
	elements.Apply(p.Ports, c.Delete.Ports, c.Put.Ports)
}
