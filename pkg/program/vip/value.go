package vip

import (
	"fmt"

	"poplin.dev/poplin/pkg/program/elements"
)

// Value is what becomes of a connection, in 32 bits, because that is what one
// lookup can return: from the top, one bit "masquerade even what comes from
// pods", one bit "clients stay with their endpoint", the number of endpoints
// (12 bits) and the group (18 bits).
type Value uint32

// The limits of a Value.
const (
	MaxEndpoints = 1<<countBits - 1
	MaxGroups    = 1 << groupBits
)

const (
	groupBits = 18
	countBits = 12

	stickyBit = 1 << 30
)

// Masks of a Value's parts, for the rules that take it apart.
const (
	GroupMask      = 1<<groupBits - 1
	PickMask       = (1<<countBits-1)<<groupBits | stickyBit
	MasqueradeMask = 1 << 31
)

// Values without endpoints.
const (
	// Refuse answers "port unreachable": there is no endpoint at all.
	Refuse Value = 1
	// Drop is silence: there are endpoints, but the traffic policy keeps
	// them from this node. A load balancer tries another node.
	Drop Value = 2
)

// To is a connection to one of count endpoints of a group. Groups count from
// FirstGroup, so that no Value looks like Refuse or Drop.
func To(group uint32, count int) Value {
	return Value(uint32(count)<<groupBits | group&GroupMask)
}

// FirstGroup is the lowest number of a group.
const FirstGroup = 16

// Masqueraded is v for which a pod's address is masqueraded too.
func (v Value) Masqueraded() Value { return v | MasqueradeMask }

// Sticky is v with clients that stay with their endpoint.
func (v Value) Sticky() Value { return v | stickyBit }

// Group is the group's number.
func (v Value) Group() uint32 { return uint32(v) & GroupMask }

// Count is the number of endpoints.
func (v Value) Count() int { return int(v>>groupBits) & MaxEndpoints }

// IsMasqueraded and IsSticky read the two bits.
func (v Value) IsMasqueraded() bool { return v&MasqueradeMask != 0 }

// IsSticky reports whether clients stay with their endpoint.
func (v Value) IsSticky() bool { return v&stickyBit != 0 }

// Pick names the chain that draws an endpoint for v.
func (v Value) Pick() Pick { return Pick(v & PickMask) }

// Pick is how an endpoint is drawn: from how many, and whether a client's
// earlier choice counts. There is a chain for each.
type Pick uint32

// Count is the number of endpoints to draw from; 0 is a refusal.
func (p Pick) Count() int { return Value(p).Count() }

// IsSticky reports whether an earlier choice counts.
func (p Pick) IsSticky() bool { return Value(p).IsSticky() }

func (v Value) String() string {
	switch v {
	case Refuse:
		return "refuse"
	case Drop:
		return "drop"
	}
	text := fmt.Sprintf("one of %d in %s", v.Count(), elements.ClassID(v.Group()))
	if v.IsSticky() {
		text += ", sticky"
	}
	if v.IsMasqueraded() {
		text += ", masqueraded"
	}
	return text
}
