package facts

import (
	"net/netip"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
)

// Watch is what a node is to look out for, and perhaps to send.
type Watch struct {
	// Flows are looked for in both directions, wherever they come from where
	// Src is invalid.
	Flows []Flow `json:"flows"`
	// Pods of this node have their own namespaces watched too.
	Pods []netip.Addr `json:"pods,omitempty"`
	// Overlay is the port of encapsulated packets.
	Overlay uint16    `json:"overlay"`
	Send    []Request `json:"send,omitempty"`
	// Live ends the watch a moment after the first packet was seen.
	Live bool `json:"live,omitempty"`
	// Limit is when it ends at last.
	Limit time.Duration `json:"limit"`
}

// Request is one that is really made.
type Request struct {
	// Pod is the address of the one that makes it; invalid for the node.
	Pod   netip.Addr       `json:"pod,omitzero"`
	To    netip.AddrPort   `json:"to"`
	Proto service.Protocol `json:"proto"`
	// Port is the one that it comes from.
	Port uint16 `json:"port"`
	// URL is what is asked for over the connection; empty for nothing.
	URL string `json:"url,omitempty"`
	// Name is what a name server is asked for; empty for nothing.
	Name string `json:"name,omitempty"`
}

// Outcome is how a request ended.
type Outcome struct {
	Request
	// Answered says that whoever listens there did: a connection, a datagram.
	Answered bool `json:"answered"`
	// Refused says that an answer came which says no.
	Refused bool `json:"refused,omitempty"`
	// Unsent says that it never began, for the reason Error.
	Unsent bool   `json:"unsent,omitempty"`
	Error  string `json:"error,omitempty"`
	// Status is that of HTTP; Certificate is the SHA-256 of what was shown.
	Status      int    `json:"status,omitempty"`
	Certificate string `json:"certificate,omitempty"`
}

// Sighting is a packet at one chain of one network namespace.
type Sighting struct {
	// Pod is whose namespace it is; invalid for the node's.
	Pod netip.Addr `json:"pod,omitzero"`
	// Packet is the same for one packet from chain to chain.
	Packet uint32 `json:"packet"`
	Hook   string `json:"hook"`
	Chain  string `json:"chain"` // with family and table
	// Point says that the chain is our own: Begin of a hook, or its End.
	Point  string `json:"point,omitempty"`
	Handle uint64 `json:"handle,omitempty"`
	// Drops says that the rule, or the chain's policy without one, dropped it.
	Drops bool           `json:"drops,omitempty"`
	In    string         `json:"in,omitempty"`
	Out   string         `json:"out,omitempty"`
	Src   netip.AddrPort `json:"src,omitzero"`
	Dst   netip.AddrPort `json:"dst,omitzero"`
	// Outer says that it is the packet around the packet.
	Outer bool `json:"outer,omitempty"`
	// Of is the flow's destination, and Back that this is the answer: known of
	// what our own chains saw.
	Of   netip.AddrPort `json:"of,omitzero"`
	Back bool           `json:"back,omitempty"`
}

// Points of a hook at which our own chains are.
const (
	Begin = "begin"
	End   = "end"
)

// Watched is what was seen.
type Watched struct {
	// Ready is said once, when everything is in place.
	Ready     bool       `json:"ready,omitempty"`
	Sightings []Sighting `json:"sightings,omitempty"`
	Outcomes  []Outcome  `json:"outcomes,omitempty"`
	// Counted are packets by point, from the rules' own counters.
	Counted map[string]uint64 `json:"counted,omitempty"`
	// Reasons are what the kernel counted meanwhile of packets that it did
	// not forward or take, such as IPReversePathFilter.
	Reasons map[string]int `json:"reasons,omitempty"`
	// Hidden has, by pod or empty for the node, why nobody watched there.
	Hidden map[string]string `json:"hidden,omitempty"`
}
