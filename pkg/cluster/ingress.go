package cluster

import (
	"bytes"
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// ObjectName names an object of a namespace.
type ObjectName struct{ Namespace, Name string }

func (n ObjectName) String() string { return n.Namespace + "/" + n.Name }

// MarshalText is String.
func (n ObjectName) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (n *ObjectName) UnmarshalText(text []byte) error {
	n.Namespace, n.Name, _ = strings.Cut(string(text), "/")
	return nil
}

// Compare orders names by namespace, then name.
func (n ObjectName) Compare(o ObjectName) int {
	return cmp.Or(strings.Compare(n.Namespace, o.Namespace), strings.Compare(n.Name, o.Name))
}

// Ingress is what networking.k8s.io/v1 says of one Ingress.
type Ingress struct {
	ObjectName
	UID         string
	Created     time.Time
	Annotations map[string]string
	// Class is spec.ingressClassName; empty where it is not set.
	Class   string
	Default *IngressBackend
	TLS     []IngressTLS
	Rules   []IngressRule
	// Status is status.loadBalancer.ingress: what others read of it.
	Status []IngressAddress
}

// IngressTLS names the certificate of some hosts.
type IngressTLS struct {
	Hosts  []string
	Secret string
}

// IngressRule is the paths of one host; an empty host is every host.
type IngressRule struct {
	Host  string
	Paths []IngressPath
}

// IngressPath is one path and where it leads.
type IngressPath struct {
	Path    string
	Type    PathType
	Backend IngressBackend
}

// PathType says how a path is compared with a request's.
type PathType string

// The path types of the API.
const (
	PathExact  PathType = "Exact"
	PathPrefix PathType = "Prefix"
	PathOther  PathType = "ImplementationSpecific"
)

// IngressBackend is a Service's port, or, where Resource is set, an object
// of another kind.
type IngressBackend struct {
	Service string
	// Port is the Service's port by number, or by PortName where it is 0.
	Port     uint16
	PortName string
	Resource string
}

// IngressAddress is one address at which an Ingress answers: IP or Hostname.
type IngressAddress struct {
	IP       string `json:"ip,omitempty"`
	Hostname string `json:"hostname,omitempty"`
}

// IngressClass says which controller serves the Ingresses of a class.
type IngressClass struct {
	Name       string
	Created    time.Time
	Controller string
	Default    bool
}

// Service is a Service as far as its ports and addresses go.
type Service struct {
	ObjectName
	Type         string
	ExternalName string
	ClusterIPs   []string
	ExternalIPs  []string
	LoadBalancer []IngressAddress
	Ports        []ServicePort
}

// ServicePort is one TCP port of a Service. Port names tie it to the ports
// of EndpointSlices.
type ServicePort struct {
	Name        string
	Port        uint16
	AppProtocol string
}

// EndpointSlice is a part of a Service's endpoints.
type EndpointSlice struct {
	ObjectName
	Service   string
	Ports     []EndpointPort
	Endpoints []Endpoint
}

// EndpointPort is the port behind the Service's port of the same name.
type EndpointPort struct {
	Name string
	Port uint16
}

// Endpoint is one pod behind a Service, at one address.
type Endpoint struct {
	Addr netip.Addr
	// Ready endpoints take new connections. Serving ones that are not ready
	// are terminating and still answer.
	Ready, Serving bool
}

// Secret is the content of a Secret that something refers to.
type Secret struct {
	ObjectName
	Type string
	Data map[string][]byte
}

// Equal reports whether two Secrets hold the same.
func (s Secret) Equal(o Secret) bool {
	return s.ObjectName == o.ObjectName && s.Type == o.Type && maps.EqualFunc(s.Data, o.Data, bytes.Equal)
}

// SortIngresses orders Ingresses by age, then namespace and name: the order
// in which claims on a host and path are honoured.
func SortIngresses(list []*Ingress) {
	slices.SortFunc(list, func(a, b *Ingress) int {
		return cmp.Or(a.Created.Compare(b.Created), a.ObjectName.Compare(b.ObjectName))
	})
}
