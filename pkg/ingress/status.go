package ingress

import (
	"slices"

	"poplin.dev/poplin/pkg/cluster"
)

// Addresses are those at which the Service in front of the proxy is reached:
// what status.loadBalancer of every Ingress should say. A load balancer's own
// come first; a Service without one has external addresses or, inside the
// cluster, its virtual ones.
func Addresses(s *cluster.Service) []cluster.IngressAddress {
	if s == nil {
		return nil
	}
	if s.Type == "LoadBalancer" {
		return slices.Clone(s.LoadBalancer)
	}
	ips := s.ExternalIPs
	if len(ips) == 0 {
		ips = s.ClusterIPs
	}
	var list []cluster.IngressAddress
	for _, ip := range ips {
		if ip != "None" {
			list = append(list, cluster.IngressAddress{IP: ip})
		}
	}
	return list
}
