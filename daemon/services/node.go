package services

import (
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"

	"poplin.dev/poplin/pkg/services"
)

// facts puts together what the compiler needs to know of this node and of the
// cluster, or says what is missing.
func (p *pass) facts() (node services.Node, waiting string) {
	self, ok := p.deps.Cluster.Self()
	if !ok {
		return node, "this node's Node object"
	}
	others, ok := p.deps.Cluster.Nodes()
	if !ok {
		return node, "the first complete list of NodeNetworks"
	}
	local, err := addresses()
	if err != nil {
		// Without them, guards of the overlay still stop what would be refused here.
		p.deps.Log.Warn("cannot list this node's addresses", "error", err)
	}
	known := map[netip.Addr]bool{}
	for _, a := range slices.Concat(local, self.Addresses) {
		known[a] = true
	}
	for _, n := range others {
		known[n.VTEP.Addr] = true
	}
	p.known.Store(&known)
	conf := p.deps.Config
	node = services.Node{
		Name: self.Name, Zone: self.Zone, Addresses: self.Addresses, NodePortAddresses: self.Addresses,
		IsNodeAddress: func(a netip.Addr) bool { return (*p.known.Load())[a] },
		OverlayPort:   conf.OverlayPort, ExternalRanges: conf.ExternalIPs, ServiceRanges: p.deps.Source.Ranges(),
	}
	if len(conf.NodePorts) > 0 {
		node.NodePortAddresses = slices.DeleteFunc(local, func(a netip.Addr) bool {
			return !slices.ContainsFunc(conf.NodePorts, func(r netip.Prefix) bool { return r.Contains(a) })
		})
	}
	return node, ""
}

// same says that there is no need to compile Services anew. Which addresses
// others have is not compared: it decides only what is refused, and nodes
// come and go.
func same(a, b services.Node) bool {
	a.IsNodeAddress, b.IsNodeAddress = nil, nil
	return reflect.DeepEqual(a, b)
}

// addresses are this node's own, in their order.
func addresses() ([]netip.Addr, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var list []netip.Addr
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				list = append(list, addr.Unmap())
			}
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list), nil
}
