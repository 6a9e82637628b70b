// Package cluster is the model: what Poplin knows of a cluster, as plain
// values of the standard library. Inputs are facts that pkg/kube and
// pkg/apply gathered; outputs are the compilers' arguments. It refuses to
// know the API server, the kernel or the time.
package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Self is this node as its Node object describes it.
type Self struct {
	// Name and UID are metadata.name and metadata.uid of the Node. The
	// VTEP's MAC address derives from UID, so two nodes cloned from one
	// disk image never share it.
	Name, UID string
	// PodCIDRs is spec.podCIDRs: at most one prefix per family, in the
	// Node's order. Empty until the node's ranges are assigned.
	PodCIDRs []netip.Prefix
	// Former are the ranges that a Node of this name had on this machine
	// before: pods may still have their addresses.
	Former []netip.Prefix
	// Addresses is status.addresses of type InternalIP: at most one per
	// family, in the Node's order; the first one's family is the underlay's.
	Addresses []netip.Addr
	// Zone is the label topology.kubernetes.io/zone.
	Zone string
	// Leaving says that the Node is being deleted, or soon will be by the
	// cluster's autoscaler.
	Leaving bool
}

// Node is one node's part in the pod network: the content of its
// NodeNetwork object.
type Node struct {
	Name string
	// PodCIDRs is masked, at most one prefix per family.
	PodCIDRs []netip.Prefix
	// VTEP is where other nodes send encapsulated packets. Without a MAC
	// address there is no tunnel: the node is reached directly or not at all.
	VTEP VTEP
	// MTU in bytes of the pods' links on that node.
	MTU int
	// Direct are the node's addresses with the length of their network's
	// prefix, at most one per family: other nodes of that network may send
	// pods' packets there as they are, without the overlay. Empty where the
	// node does not want that.
	Direct []netip.Prefix
	// Created is the object's creation time: where two nodes claim one
	// range, the older one has it.
	Created time.Time
}

// VTEP is a VXLAN tunnel end point (RFC 7348).
type VTEP struct {
	// Addr is the outer IP address, one of the Node's InternalIPs.
	Addr netip.Addr
	// MAC is the inner destination address of packets for this VTEP.
	MAC MAC
}

// Tunnel reports whether encapsulated packets are taken.
func (v VTEP) Tunnel() bool { return v.MAC != MAC{} }

// Underlay is what the kernel of this node says of the device that carries
// encapsulated packets.
type Underlay struct {
	// Link and Index name the device that holds Addr.
	Link  string
	Index int
	// Addr is the local VTEP address.
	Addr netip.Addr
	// MTU in bytes of Link.
	MTU int
}

// Equal reports whether n and o say the same of a node. Created does not
// count: it is the API server's, not the node's.
func (n Node) Equal(o Node) bool {
	return n.Name == o.Name && n.VTEP == o.VTEP && n.MTU == o.MTU && slices.Equal(n.PodCIDRs, o.PodCIDRs) && slices.Equal(n.Direct, o.Direct)
}

// Validate names the first field of n that cannot be programmed.
func (n Node) Validate() error {
	if n.Name == "" {
		return errors.New("name: empty")
	}
	if err := ValidatePodCIDRs(n.PodCIDRs); err != nil {
		return err
	}
	switch a := n.VTEP.Addr; {
	case !a.IsValid(), a.IsUnspecified(), a.IsLoopback(), a.IsMulticast(), a.Zone() != "":
		return fmt.Errorf("vtep.address: %q is no unicast address that other nodes can reach", a)
	}
	if m := n.VTEP.MAC; m[0]&1 != 0 {
		return fmt.Errorf("vtep.mac: %q is no unicast MAC address", m)
	}
	if !n.VTEP.Tunnel() && len(n.Direct) == 0 {
		return errors.New("vtep.mac: missing, and direct names no other way to the node")
	}
	for _, p := range n.Direct {
		if a := p.Addr(); !p.IsValid() || a.Is4In6() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a == p.Masked().Addr() && p.Bits() < a.BitLen()-1 {
			return fmt.Errorf("direct: %q is no address of a node with the length of its network's prefix", p)
		}
	}
	if n.MTU < 1280-40 || n.MTU > 65535 {
		return fmt.Errorf("mtu: %d is outside 1240..65535 bytes", n.MTU)
	}
	return nil
}

// ValidatePodCIDRs refuses a list with an unmasked prefix, a family twice or
// a range too small to hold a pod.
func ValidatePodCIDRs(cidrs []netip.Prefix) error {
	var v4, v6 int
	for _, p := range cidrs {
		switch {
		case !p.IsValid() || p != p.Masked():
			return fmt.Errorf("podCIDRs: %q is no network address with a prefix length", p)
		case p.Addr().Is4In6():
			return fmt.Errorf("podCIDRs: %q is an IPv4 range written as IPv6", p)
		case p.Bits() == 0 || p.Bits() > p.Addr().BitLen()-2:
			return fmt.Errorf("podCIDRs: %q holds no pods", p)
		case p.Addr().Is4():
			v4++
		default:
			v6++
		}
	}
	if v4 > 1 || v6 > 1 {
		return fmt.Errorf("podCIDRs: %v has more than one range of a family", cidrs)
	}
	return nil
}

// Reference points to an object of the API server, to say something about it.
type Reference struct {
	// APIVersion and Kind are such as "v1" and "Node".
	APIVersion, Kind string
	// Namespace is empty where the kind has none.
	Namespace, Name, UID string
}

// NodeReference points to a Node. Where its UID is not known, that is its
// name, as in what kubelets say of their Nodes.
func NodeReference(name, uid string) Reference {
	return Reference{APIVersion: "v1", Kind: "Node", Name: name, UID: cmp.Or(uid, name)}
}

func (r Reference) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// SortNodes orders nodes by age, then name: the order in which claims on a
// range are honoured.
func SortNodes(nodes []Node) {
	slices.SortFunc(nodes, func(a, b Node) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
}
