package ingress

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"poplin.dev/poplin/pkg/cluster"
)

const (
	// defaultClass is an annotation of an IngressClass: Ingresses that name no
	// class are of it.
	defaultClass = "ingressclass.kubernetes.io/is-default-class"
	// serviceLabel is a label of an EndpointSlice: the Service that it belongs to.
	serviceLabel = "kubernetes.io/service-name"
)

// Each tell function passes an object on; one that is not understood is
// reported and passed on as if it were not there.

func (c *Client) tellClass(n cluster.ObjectName, o *object) error {
	if o == nil {
		c.reader.Class(n.Name, nil)
		return nil
	}
	var j classJSON
	if err := json.Unmarshal(o.text, &j); err != nil {
		return err
	}
	c.reader.Class(n.Name, &cluster.IngressClass{
		Name: n.Name, Created: o.CreationTimestamp.Time, Controller: j.Spec.Controller, Default: o.Annotations[defaultClass] == "true",
	})
	return nil
}

func (c *Client) tellIngress(n cluster.ObjectName, o *object) error {
	if o == nil {
		c.reader.Ingress(n, nil)
		return nil
	}
	i, err := toIngress(n, o)
	if err != nil {
		return err
	}
	c.reader.Ingress(n, i)
	return nil
}

func toIngress(n cluster.ObjectName, o *object) (*cluster.Ingress, error) {
	var j ingressJSON
	if err := json.Unmarshal(o.text, &j); err != nil {
		return nil, err
	}
	i := &cluster.Ingress{
		ObjectName: n, UID: string(o.UID), Created: o.CreationTimestamp.Time, Annotations: o.Annotations,
		Class: j.Spec.IngressClassName, Status: toAddresses(j.Status),
	}
	if j.Spec.DefaultBackend != nil {
		b := toBackend(*j.Spec.DefaultBackend)
		i.Default = &b
	}
	for _, t := range j.Spec.TLS {
		i.TLS = append(i.TLS, cluster.IngressTLS{Hosts: t.Hosts, Secret: t.SecretName})
	}
	for _, r := range j.Spec.Rules {
		rule := cluster.IngressRule{Host: r.Host}
		for _, p := range r.HTTP.Paths {
			rule.Paths = append(rule.Paths, cluster.IngressPath{Path: p.Path, Type: cluster.PathType(p.PathType), Backend: toBackend(p.Backend)})
		}
		i.Rules = append(i.Rules, rule)
	}
	return i, nil
}

func toBackend(j backendJSON) cluster.IngressBackend {
	var b cluster.IngressBackend
	if j.Service != nil {
		b.Service, b.Port, b.PortName = j.Service.Name, j.Service.Port.Number, j.Service.Port.Name
	}
	if j.Resource != nil {
		b.Resource = j.Resource.Kind + " " + j.Resource.Name
	}
	return b
}

func toAddresses(j statusJSON) []cluster.IngressAddress {
	var list []cluster.IngressAddress
	for _, a := range j.LoadBalancer.Ingress {
		list = append(list, cluster.IngressAddress(a))
	}
	return list
}

func (c *Client) tellService(n cluster.ObjectName, o *object) error {
	if o == nil {
		c.reader.Service(n, nil)
		return nil
	}
	var j serviceJSON
	if err := json.Unmarshal(o.text, &j); err != nil {
		return err
	}
	s := &cluster.Service{
		ObjectName: n, Type: j.Spec.Type, ExternalName: j.Spec.ExternalName, ClusterIPs: j.Spec.ClusterIPs,
		ExternalIPs: j.Spec.ExternalIPs, LoadBalancer: toAddresses(j.Status),
	}
	for _, p := range j.Spec.Ports {
		if p.Protocol == "" || p.Protocol == "TCP" {
			s.Ports = append(s.Ports, cluster.ServicePort{Name: p.Name, Port: p.Port, AppProtocol: p.AppProtocol})
		}
	}
	c.reader.Service(n, s)
	return nil
}

// tellEndpoints cannot look up the Service of a slice that is gone: the store
// hands it the last object with its text removed.
func (c *Client) tellEndpoints(n cluster.ObjectName, o *object) error {
	service := cluster.ObjectName{Namespace: n.Namespace, Name: o.Labels[serviceLabel]}
	if service.Name == "" {
		return nil // somebody's own; it stands behind no Service
	}
	if o.text == nil {
		c.reader.Endpoints(service, n.Name, nil)
		return nil
	}
	s, err := toSlice(n, service.Name, o)
	if err != nil {
		return err
	}
	c.reader.Endpoints(service, n.Name, s)
	return nil
}

func toSlice(n cluster.ObjectName, service string, o *object) (*cluster.EndpointSlice, error) {
	var j sliceJSON
	if err := json.Unmarshal(o.text, &j); err != nil {
		return nil, err
	}
	s := &cluster.EndpointSlice{ObjectName: n, Service: service}
	if j.AddressType == "FQDN" {
		return s, nil
	}
	for _, p := range j.Ports {
		if p.Protocol == "" || p.Protocol == "TCP" {
			s.Ports = append(s.Ports, cluster.EndpointPort{Name: p.Name, Port: p.Port})
		}
	}
	for _, e := range j.Endpoints {
		// The addresses of one endpoint are interchangeable; by the API's
		// words consumers use the first.
		if len(e.Addresses) == 0 {
			continue
		}
		a, err := netip.ParseAddr(e.Addresses[0])
		if err != nil {
			return nil, fmt.Errorf("endpoints: %q is no IP address", e.Addresses[0])
		}
		ready := e.Conditions.Ready == nil || *e.Conditions.Ready
		serving := e.Conditions.Serving == nil && ready || e.Conditions.Serving != nil && *e.Conditions.Serving
		s.Endpoints = append(s.Endpoints, cluster.Endpoint{Addr: a.Unmap(), Ready: ready, Serving: serving})
	}
	return s, nil
}

func (c *Client) tellSecret(n cluster.ObjectName, o *object) error {
	if o == nil {
		c.reader.Secret(n, nil)
		return nil
	}
	var j secretJSON
	if err := json.Unmarshal(o.text, &j); err != nil {
		// The library's text may quote the content.
		return fmt.Errorf("it is no Secret")
	}
	c.reader.Secret(n, &cluster.Secret{ObjectName: n, Type: j.Type, Data: j.Data})
	return nil
}
