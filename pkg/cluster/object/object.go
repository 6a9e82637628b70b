// Package object is the part of the model that explanations need of the API's
// objects and no data path does: what selects what, which port is called how,
// why a pod does not run. Values have the API's own names in JSON. It refuses
// to hold a Secret's content.
package object

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
)

// Meta is an object's metadata.
type Meta struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	UID       string            `json:"uid"`
	Labels    map[string]string `json:"labels"`
	Deleted   *time.Time        `json:"deletionTimestamp"`
}

// Key is namespace and name.
func (m Meta) Key() service.Key { return service.Key{Namespace: m.Namespace, Name: m.Name} }

func (m Meta) String() string { return m.Key().String() }

// Pod is a Pod.
type Pod struct {
	Meta `json:"metadata"`
	Spec struct {
		NodeName    string      `json:"nodeName"`
		HostNetwork bool        `json:"hostNetwork"`
		Containers  []Container `json:"containers"`
		Init        []Container `json:"initContainers"`
	} `json:"spec"`
	Status struct {
		Phase      string      `json:"phase"`
		PodIPs     []IP        `json:"podIPs"`
		Conditions []Condition `json:"conditions"`
		Containers []struct {
			Name  string `json:"name"`
			Ready bool   `json:"ready"`
			State struct {
				Waiting *struct {
					Reason  string `json:"reason"`
					Message string `json:"message"`
				} `json:"waiting"`
			} `json:"state"`
		} `json:"containerStatuses"`
	} `json:"status"`
}

// IP is an address in the API's writing.
type IP struct {
	IP string `json:"ip"`
}

// Container is one of a pod's.
type Container struct {
	Name  string          `json:"name"`
	Ports []ContainerPort `json:"ports"`
}

// ContainerPort is a port that a container names.
type ContainerPort struct {
	Name     string `json:"name"`
	Port     uint16 `json:"containerPort"`
	HostPort uint16 `json:"hostPort"`
	Protocol string `json:"protocol"`
}

// Condition is one of a status.
type Condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Addresses are the pod's.
func (p Pod) Addresses() []netip.Addr { return addresses(p.Status.PodIPs) }

func addresses(list []IP) (addrs []netip.Addr) {
	for _, i := range list {
		if a, err := netip.ParseAddr(i.IP); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// Ready reports whether the pod says so.
func (p Pod) Ready() bool { return holds(p.Status.Conditions, "Ready") }

// Ended reports whether its containers will not run again.
func (p Pod) Ended() bool { return p.Status.Phase == "Succeeded" || p.Status.Phase == "Failed" }

func holds(list []Condition, kind string) bool {
	return slices.ContainsFunc(list, func(c Condition) bool { return c.Type == kind && c.Status == "True" })
}

// Port finds a port of the pod's containers by name, with its protocol.
func (p Pod) Port(name string, proto service.Protocol) (uint16, bool) {
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.Init) {
		for _, x := range c.Ports {
			if x.Name == name && protocol(x.Protocol) == proto {
				return x.Port, true
			}
		}
	}
	return 0, false
}

// Declared are the ports that the pod's containers name, of one protocol.
func (p Pod) Declared(proto service.Protocol) (ports []uint16) {
	for _, c := range slices.Concat(p.Spec.Containers, p.Spec.Init) {
		for _, x := range c.Ports {
			if protocol(x.Protocol) == proto {
				ports = append(ports, x.Port)
			}
		}
	}
	return ports
}

// HostPort reports whether a host port leads to the pod, and to which of its ports.
func (p Pod) HostPort(port uint16, proto service.Protocol) (uint16, bool) {
	for _, c := range p.Spec.Containers {
		for _, x := range c.Ports {
			if x.HostPort == port && protocol(x.Protocol) == proto {
				return x.Port, true
			}
		}
	}
	return 0, false
}

func protocol(name string) service.Protocol {
	p, err := service.ParseProtocol(name)
	if err != nil {
		return service.TCP // the API's default
	}
	return p
}

// Service is a Service.
type Service struct {
	Meta `json:"metadata"`
	Spec struct {
		Type         string            `json:"type"`
		ClusterIPs   []string          `json:"clusterIPs"`
		ExternalIPs  []string          `json:"externalIPs"`
		ExternalName string            `json:"externalName"`
		Selector     map[string]string `json:"selector"`
		Ports        []ServicePort     `json:"ports"`
		Internal     string            `json:"internalTrafficPolicy"`
		External     string            `json:"externalTrafficPolicy"`
	} `json:"spec"`
	Status struct {
		LoadBalancer struct {
			Ingress []IP `json:"ingress"`
		} `json:"loadBalancer"`
	} `json:"status"`
}

// ServicePort is one of its ports.
type ServicePort struct {
	Name     string    `json:"name"`
	Protocol string    `json:"protocol"`
	Port     uint16    `json:"port"`
	Target   IntOrText `json:"targetPort"`
	NodePort uint16    `json:"nodePort"`
}

// Proto is the port's protocol.
func (p ServicePort) Proto() service.Protocol { return protocol(p.Protocol) }

// IntOrText is a number or a name.
type IntOrText string

// UnmarshalJSON implements json.Unmarshaler.
func (v *IntOrText) UnmarshalJSON(b []byte) error {
	*v = IntOrText(strings.Trim(string(b), `"`))
	return nil
}

// Number is the value where it is a number.
func (v IntOrText) Number() (uint16, bool) {
	n, err := strconv.ParseUint(string(v), 10, 16)
	return uint16(n), err == nil
}

// ClusterIPs are the addresses inside the cluster; none in a headless Service.
func (s Service) ClusterIPs() (addrs []netip.Addr) {
	for _, text := range s.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// Outer are the addresses for clients outside: load balancers', and external ones.
func (s Service) Outer() (addrs []netip.Addr) {
	for _, text := range s.Spec.ExternalIPs {
		if a, err := netip.ParseAddr(text); err == nil {
			addrs = append(addrs, a)
		}
	}
	return append(addrs, addresses(s.Status.LoadBalancer.Ingress)...)
}

// Selects reports whether the Service's selector, if it has one, has the pod.
func (s Service) Selects(p Pod) bool {
	if len(s.Spec.Selector) == 0 || p.Namespace != s.Namespace {
		return false
	}
	for k, v := range s.Spec.Selector {
		if p.Labels[k] != v {
			return false
		}
	}
	return true
}

// Slice is an EndpointSlice.
type Slice struct {
	Meta      `json:"metadata"`
	Family    string      `json:"addressType"`
	Endpoints []Endpoint  `json:"endpoints"`
	Ports     []SlicePort `json:"ports"`
}

// SlicePort is where all endpoints of a slice listen.
type SlicePort struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
}

// Endpoint is one of a slice.
type Endpoint struct {
	Addresses  []string `json:"addresses"`
	Conditions struct {
		Ready       *bool `json:"ready"`
		Serving     *bool `json:"serving"`
		Terminating *bool `json:"terminating"`
	} `json:"conditions"`
	Node   string `json:"nodeName"`
	Target *struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
	} `json:"targetRef"`
}

// Ready reads an unset condition as the API says.
func (e Endpoint) Ready() bool { return e.Conditions.Ready == nil || *e.Conditions.Ready }

// Terminating reads an unset condition as the API says.
func (e Endpoint) Terminating() bool {
	return e.Conditions.Terminating != nil && *e.Conditions.Terminating
}

// Port finds the port of a Service's port.
func (s Slice) Port(p ServicePort) (uint16, bool) {
	for _, x := range s.Ports {
		if x.Name == p.Name && protocol(x.Protocol) == p.Proto() {
			return x.Port, true
		}
	}
	return 0, false
}

// Node is a Node.
type Node struct {
	Meta `json:"metadata"`
	Spec struct {
		PodCIDRs []netip.Prefix `json:"podCIDRs"`
	} `json:"spec"`
	Status struct {
		Addresses  []NodeAddress `json:"addresses"`
		Conditions []Condition   `json:"conditions"`
	} `json:"status"`
}

// NodeAddress is one of a node's.
type NodeAddress struct {
	Type    string `json:"type"`
	Address string `json:"address"`
}

// SetAddresses makes these the node's.
func (n *Node) SetAddresses(addrs ...netip.Addr) {
	n.Status.Addresses = nil
	for _, a := range addrs {
		n.Status.Addresses = append(n.Status.Addresses, NodeAddress{Type: "InternalIP", Address: a.String()})
	}
}

// Addresses are those of type InternalIP.
func (n Node) Addresses() (addrs []netip.Addr) {
	for _, x := range n.Status.Addresses {
		if a, err := netip.ParseAddr(x.Address); err == nil && x.Type == "InternalIP" {
			addrs = append(addrs, a)
		}
	}
	return addrs
}

// Ready reports whether the node's kubelet says so.
func (n Node) Ready() bool { return holds(n.Status.Conditions, "Ready") }

// Why is the reason of a condition that does not hold.
func (n Node) Why() string {
	for _, c := range n.Status.Conditions {
		if c.Type == "Ready" && c.Status != "True" {
			return fmt.Sprintf("%s: %s", c.Reason, c.Message)
		}
	}
	return "its kubelet has not said that it is ready"
}
