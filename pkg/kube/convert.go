package kube

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"k8s.io/apimachinery/pkg/types"

	"poplin.dev/poplin/pkg/cluster"
)

// self is this node's Node.
type self struct {
	cluster.Self
	// unavailable says that somebody, usually a cloud's controller, declared
	// the node's network unavailable.
	unavailable bool
}

const (
	// zoneLabel is a label of a Node: its zone, by which endpoints' hints are
	// followed.
	zoneLabel = "topology.kubernetes.io/zone"
	// leavingTaint is a taint of a Node that the cluster autoscaler is about to
	// remove: `/healthz` of `services.healthz` is 503.
	leavingTaint = "ToBeDeletedByClusterAutoscaler"
)

// network is a NodeNetwork.
type network struct {
	cluster.Node
	owner types.UID
}

func toSelf(o *node) (self, error) {
	s := self{Self: cluster.Self{Name: o.Name, UID: string(o.UID), Zone: o.Labels[zoneLabel]}}
	s.Leaving = o.DeletionTimestamp != nil || slices.Contains(o.Spec.Taints, taint{leavingTaint})
	var err error
	if s.PodCIDRs, err = parsePrefixes(o.Spec.PodCIDRs); err != nil {
		return s, fmt.Errorf("spec.%w", err)
	}
	if err := cluster.ValidatePodCIDRs(s.PodCIDRs); err != nil {
		return s, fmt.Errorf("spec.%w", err)
	}
	for _, a := range o.Status.Addresses {
		if a.Type != "InternalIP" {
			continue
		}
		addr, err := netip.ParseAddr(a.Address)
		if err != nil {
			return s, fmt.Errorf("status.addresses: %q is no IP address", a.Address)
		}
		addr = addr.Unmap()
		known := func(k netip.Addr) bool { return k.Is4() == addr.Is4() }
		if !slices.ContainsFunc(s.Addresses, known) {
			s.Addresses = append(s.Addresses, addr)
		}
	}
	for _, c := range o.Status.Conditions {
		s.unavailable = s.unavailable || c.Type == networkUnavailable && c.Status != "False"
	}
	return s, nil
}

func toNetwork(o *NodeNetwork) (network, error) {
	n := network{Node: cluster.Node{Name: o.Name, Created: o.CreationTimestamp.Time}}
	for _, ref := range o.OwnerReferences {
		if ref.Kind == "Node" {
			n.owner = ref.UID
		}
	}
	var spec NodeNetworkSpec
	if err := json.Unmarshal(o.Spec, &spec); err != nil {
		return n, fmt.Errorf("spec: %w", err)
	}
	var err error
	if n.PodCIDRs, err = parsePrefixes(spec.PodCIDRs); err != nil {
		return n, fmt.Errorf("spec.%w", err)
	}
	for _, text := range spec.Direct {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return n, fmt.Errorf("spec.direct: %q is no address with the length of a prefix", text)
		}
		n.Direct = append(n.Direct, p)
	}
	if n.VTEP.Addr, err = netip.ParseAddr(spec.VTEP.Address); err != nil {
		return n, fmt.Errorf("spec.vtep.address: %q is no IP address", spec.VTEP.Address)
	}
	if spec.VTEP.MAC != "" {
		if n.VTEP.MAC, err = cluster.ParseMAC(spec.VTEP.MAC); err != nil {
			return n, fmt.Errorf("spec.vtep.mac: %w", err)
		}
	}
	// Of another node's MAC address an older node could make that node refused.
	if m := cluster.MACOf(string(n.owner)); n.owner != "" && n.VTEP.Tunnel() && n.VTEP.MAC != m {
		return n, fmt.Errorf("spec.vtep.mac: %s is not %s, which derives from the UID of the Node that owns the object", n.VTEP.MAC, m)
	}
	n.MTU = spec.MTU
	if err := n.Validate(); err != nil {
		return n, fmt.Errorf("spec.%w", err)
	}
	return n, nil
}

func fromNode(n cluster.Node) (json.RawMessage, error) {
	spec := NodeNetworkSpec{PodCIDRs: []string{}, MTU: n.MTU}
	for _, p := range n.PodCIDRs {
		spec.PodCIDRs = append(spec.PodCIDRs, p.String())
	}
	for _, p := range n.Direct {
		spec.Direct = append(spec.Direct, p.String())
	}
	spec.VTEP.Address, spec.VTEP.MAC = n.VTEP.Addr.String(), macText(n.VTEP)
	return json.Marshal(spec)
}

// macText is empty for a node without a tunnel.
func macText(v cluster.VTEP) string {
	if !v.Tunnel() {
		return ""
	}
	return v.MAC.String()
}

// toEndpoints returns the slice's https endpoints as host:port.
func toEndpoints(o *endpointSlice) ([]string, error) {
	var list []string
	for _, p := range o.Ports {
		if p.Port == nil || p.Name == nil || *p.Name != "https" {
			continue
		}
		for _, e := range o.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, a := range e.Addresses {
				list = append(list, net.JoinHostPort(a, strconv.Itoa(int(*p.Port))))
			}
		}
	}
	if list == nil {
		return nil, errors.New("has no ready endpoint with a port named https")
	}
	return list, nil
}

func parsePrefixes(list []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("podCIDRs: %q is no range of addresses", s)
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}
