// Package service is the part of the model that a node's data path needs of
// Services: everything that decides where a packet for a Service goes. The
// package cluster has the few words an Ingress needs of them. Inputs are facts
// from the API; outputs are the arguments of pkg/services. It refuses to know
// where the facts come from, and checks nothing: what is wrong with an object
// is for the compiler to say.
package service

import (
	"cmp"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Protocol is a transport protocol by its IANA number.
type Protocol uint8

// The protocols a Service can have.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// ParseProtocol reads what String writes of a protocol that a Service can have.
func ParseProtocol(name string) (Protocol, error) {
	for _, p := range []Protocol{TCP, UDP, SCTP} {
		if p.String() == strings.ToLower(name) {
			return p, nil
		}
	}
	return 0, fmt.Errorf("protocol %q: write tcp, udp or sctp", name)
}

// MarshalText implements encoding.TextMarshaler.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (p *Protocol) UnmarshalText(text []byte) error {
	if number, ok := strings.CutPrefix(string(text), "protocol "); ok {
		n, err := strconv.ParseUint(number, 10, 8)
		*p = Protocol(n)
		return err
	}
	var err error
	*p, err = ParseProtocol(string(text))
	return err
}

// Key names an object within its kind.
type Key struct {
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

func (n Key) String() string { return n.Namespace + "/" + n.Name }

// Compare orders names by namespace, then name.
func (n Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(n.Namespace, o.Namespace), cmp.Compare(n.Name, o.Name))
}

// Service is a Service as its object says, of any type; what the object
// leaves open has its documented default.
type Service struct {
	Key
	Type Type
	// Created orders Services that claim one address and port.
	Created time.Time
	// ProxyName is the label service.kubernetes.io/service-proxy-name: any
	// value means that another proxy serves this Service.
	ProxyName string
	// ClusterIPs holds at most one address per family, and none in a
	// headless Service.
	ClusterIPs  []netip.Addr
	ExternalIPs []netip.Addr
	// Ingress lists the addresses of status.loadBalancer; entries that have
	// a host name only are left out.
	Ingress []Ingress
	// SourceRanges is spec.loadBalancerSourceRanges; empty means anyone.
	SourceRanges []netip.Prefix
	Ports        []Port
	// InternalLocal and ExternalLocal are the traffic policies "Local".
	InternalLocal, ExternalLocal bool
	// Affinity is how long a client stays with its endpoint; 0: not at all.
	Affinity time.Duration
	// HealthCheckNodePort is 0 where the Service has none.
	HealthCheckNodePort uint16
}

// Type is spec.type.
type Type string

// The types as the API spells them.
const (
	ClusterIP    Type = "ClusterIP"
	NodePort     Type = "NodePort"
	LoadBalancer Type = "LoadBalancer"
	ExternalName Type = "ExternalName"
)

// Ingress is one address of a load balancer.
type Ingress struct {
	Addr netip.Addr
	// Proxy is ipMode Proxy: the balancer ends connections itself, so nodes
	// must not take its address for themselves.
	Proxy bool
}

// Port is one port of a Service.
type Port struct {
	// Name ties it to the ports of EndpointSlices; it may be empty.
	Name     string
	Protocol Protocol
	Port     uint16
	// NodePort is 0 where none is allocated.
	NodePort uint16
}

// Slice is a part of a Service's endpoints.
type Slice struct {
	Key
	// Service is the label kubernetes.io/service-name.
	Service string
	// Family is the address type: 4, 6, or 0 for one that has no addresses.
	Family    int
	Ports     []SlicePort
	Endpoints []Endpoint
}

// SlicePort is where all endpoints of a slice listen. An object without a
// number has Port 0.
type SlicePort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// Endpoint is one endpoint: its first address, as the API gives the others
// no meaning.
type Endpoint struct {
	Addr netip.Addr
	// Node is the name of the node it runs on, if it runs on one.
	Node string
	// Conditions, where an unset one reads as the API says: ready and
	// serving true, terminating false.
	Ready, Serving, Terminating bool
	// ForZones and ForNodes are hints: whose clients it should serve.
	ForZones, ForNodes []string
}
