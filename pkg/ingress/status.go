package ingress

import (
	"fmt"
	"slices"
	"time"

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

// Condition is what became of a Secret that an Ingress names for a host.
type Condition struct {
	Host   string    `json:"host"`
	Secret string    `json:"secret"`
	Until  time.Time `json:"until,omitzero"` // its certificate is valid
	// Problem is empty where the certificate is served and good.
	Problem string `json:"problem,omitempty"`
}

// Conditions are those of an Ingress after the last compilation.
func (c *Compiler) Conditions(n cluster.ObjectName, now time.Time) (list []Condition) {
	cl := c.claims[n]
	if cl == nil {
		return nil
	}
	for _, h := range cl.hosts {
		for _, s := range cl.secretsFor(h) {
			list = append(list, c.condition(cluster.ObjectName{Namespace: cl.Namespace, Name: s}, h, now))
		}
	}
	return list
}

func (c *Compiler) condition(n cluster.ObjectName, host string, now time.Time) Condition {
	d := Condition{Host: host, Secret: n.Name}
	if _, known := c.secrets[n]; !known {
		d.Problem = "could not be read"
		return d
	}
	cert, err := c.usable(n, host, now)
	if cert != nil {
		d.Until = cert.NotAfter
	}
	switch served := c.program.Certificates[host]; {
	case err != nil:
		d.Problem = err.Error()
	case served == nil || served.Secret != n:
		d.Problem = fmt.Sprintf("is not served: an older Ingress has a certificate for %s", host)
	}
	return d
}
