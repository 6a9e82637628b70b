// Package services compiles Services and their EndpointSlices into what the
// kernel of one node should hold (pkg/program/vip). Inputs are the model's
// values and what the node knows of itself; outputs are elements, Service by
// Service, with findings about what a user should mend and the answers of
// health-check ports. It refuses what cannot work (a wrong family, port 0, an
// external address outside the allowed ranges), names it, and serves the
// rest. It knows neither the API server nor the kernel.
package services

import (
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/vip"
)

// Node is what the compiler must know of this node and of the cluster.
type Node struct {
	Name, Zone string
	// Addresses are this node's own. NodePortAddresses, some of them, are
	// those on which node ports answer.
	Addresses, NodePortAddresses []netip.Addr
	// IsNodeAddress tells whether an address belongs to any node. No
	// endpoint and no front may stand there on OverlayPort over UDP: that
	// way a pod could send packets into the overlay in a node's name.
	IsNodeAddress func(netip.Addr) bool
	OverlayPort   uint16
	// ExternalRanges are where spec.externalIPs may lie.
	ExternalRanges []netip.Prefix
	// ServiceRanges are those of the cluster's ServiceCIDRs.
	ServiceRanges []netip.Prefix
}

// Finding is something a user should mend, to be reported on Object.
type Finding struct {
	// Object is a Service, or an EndpointSlice where Slice is set.
	Object service.Key
	Slice  bool
	Reason reason.Reason
	// Message is what is wrong, where, and what was done about it.
	Message string
}

// Health is what a health-check port says of a Service.
type Health struct {
	Port uint16
	// Endpoints is the number of ready ones on this node.
	Endpoints int
}

// groupKey names a list of endpoints that fronts of one service port share.
type groupKey struct {
	service service.Key
	port    string
	proto   service.Protocol
	ipv6    bool
	// local is the list that traffic policy Local leaves.
	local bool
	// sticky is part of the name: who switches affinity off and on again
	// starts without the choices of before.
	sticky bool
}

// target is what becomes of a connection.
type target struct {
	refusal    vip.Value // if set, nothing else counts
	group      groupKey
	masquerade bool
}

// entry is one front of a Service.
type entry struct {
	port   string
	inside target
	// outside differs from inside where override is set.
	outside  target
	override bool
	timeout  uint32
	// fenced fronts let only sources in.
	fenced  bool
	sources []netip.Prefix
}

// plan is what one Service wants. It is a pure function of the Service, its
// slices and the node; Table joins the plans of all Services.
type plan struct {
	service   service.Service
	groups    map[groupKey][]netip.AddrPort
	entries   map[vip.Front]entry
	addresses []netip.Addr // cluster addresses
	hairpins  map[netip.Addr]struct{}
	health    *Health
	// serving has, for UDP ports by name, the endpoints that still answer,
	// whether or not new connections go there.
	serving  map[string]map[netip.AddrPort]bool
	findings []Finding
	// starved counts the service ports to which traffic policy Local leaves
	// no endpoint on this node though there are some elsewhere.
	starved Starved
}

// Starved counts service ports by the policy that starves them.
type Starved struct{ Internal, External int }

func (s *Starved) add(o Starved, times int) {
	s.Internal += times * o.Internal
	s.External += times * o.External
}

// skipped reports that a Service is not for this proxy.
func skipped(s service.Service) bool {
	return s.ProxyName != "" || s.Type == service.ExternalName || len(s.ClusterIPs) == 0
}

// usable is false for addresses at which no packet can be received from
// another host, and for IPv4 addresses written as IPv6.
func usable(a netip.Addr) bool {
	return a.IsValid() && a.Zone() == "" && !a.Is4In6() && !a.IsUnspecified() && !a.IsLoopback() &&
		!a.IsMulticast() && !a.IsLinkLocalUnicast() && a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

func contains(ranges []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(ranges, func(p netip.Prefix) bool { return p.Contains(a) })
}
