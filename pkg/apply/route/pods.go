package route

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// PodAddresses are those of this node's pods: what the CNI plugin made routes
// to, which lead to one address and have no next hop.
func (a *Applier) PodAddresses() ([]netip.Addr, error) {
	list, err := a.listRoutes()
	if err != nil {
		return nil, err
	}
	var pods []netip.Addr
	for _, r := range list {
		if r.Type != unix.RTN_UNICAST || r.Gw != nil || r.Dst == nil {
			continue
		}
		if ones, bits := r.Dst.Mask.Size(); ones == bits {
			if ip, ok := ipOf(r.Dst.IP); ok {
				pods = append(pods, ip)
			}
		}
	}
	return pods, nil
}
