// Package reason lists why Events are said. There is no other way to name a
// reason, so each one that a program gives is documented: what it is told
// about, what it means and what ends it. It refuses to write Events.
package reason

import (
	"maps"
	"slices"
)

// Reason is why an Event is said.
type Reason int

// Reasons of poplind, on Nodes.
const (
	_ Reason = iota
	PodCIDRMissing
	NodeRefused
	PodCIDRChanged
	PeerRefused
	ForeignFirewall
	PodMTUTooLarge
	ChecksumFault
	ConflistShadowed
	ConfigInvalid
)

// Reasons of poplind, on Services and policies.
const (
	BadEndpoint Reason = iota + 100
	BadAddress
	BadPort
	ExternalAddressRefused
	AddressInUse
	TooManyEndpoints
	TooManyServices
	NodePortInUse
	FailedToStartServiceHealthcheck
	BadPolicy
	BadRule
	BadPeer
	BadSelector
	TooLarge
	MoreFindings
)

// Reasons of poplin-ingress, on Ingresses.
const (
	InvalidAnnotation Reason = iota + 200
	InvalidHost
	InvalidPath
	InvalidCertificate
	HostTaken
	Conflict
	UnsupportedBackend
	BackendUnavailable
	BackendNotVerified
)

// Entry is what users are told about a reason.
type Entry struct {
	// Name is the reason as Events have it.
	Name string
	// On are the kinds of the objects that it is told about.
	On []string
	// Normal says that all is well; other reasons are warnings.
	Normal bool
	// Means is what has happened, Cure what ends it.
	Means, Cure string
}

// String is the reason as Events have it.
func (r Reason) String() string { return r.Entry().Name }

// MarshalText implements encoding.TextMarshaler.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Warns says that something is not as the object's owner asked for.
func (r Reason) Warns() bool { return !r.Entry().Normal }

// Type is an Event's.
func (r Reason) Type() string {
	if r.Warns() {
		return "Warning"
	}
	return "Normal"
}

// Entry is what users are told about it.
func (r Reason) Entry() Entry {
	if e, found := poplind[r]; found {
		return e
	}
	return ingress[r]
}

// Poplind are the reasons that the daemon gives.
func Poplind() []Reason { return slices.Sorted(maps.Keys(poplind)) }

// Ingress are those of poplin-ingress.
func Ingress() []Reason { return slices.Sorted(maps.Keys(ingress)) }
