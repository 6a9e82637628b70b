package object

import "strconv"

// Ingress is an Ingress, of any class. Of its Secrets it has not even the
// names.
type Ingress struct {
	Meta `json:"metadata"`
	Spec struct {
		Class   string          `json:"ingressClassName"`
		Default *IngressBackend `json:"defaultBackend"`
		TLS     []struct {
			Hosts []string `json:"hosts"`
		} `json:"tls"`
		Rules []IngressRule `json:"rules"`
	} `json:"spec"`
	Status struct {
		LoadBalancer struct {
			Ingress []struct {
				IP       string `json:"ip"`
				Hostname string `json:"hostname"`
			} `json:"ingress"`
		} `json:"loadBalancer"`
	} `json:"status"`
}

// IngressRule is the paths of one host; without one, of every host.
type IngressRule struct {
	Host string `json:"host"`
	HTTP struct {
		Paths []struct {
			Path    string         `json:"path"`
			Backend IngressBackend `json:"backend"`
		} `json:"paths"`
	} `json:"http"`
}

// IngressBackend is a Service's port, or, where Service is nil, another kind
// of object.
type IngressBackend struct {
	Service *struct {
		Name string `json:"name"`
		Port struct {
			Name   string `json:"name"`
			Number uint16 `json:"number"`
		} `json:"port"`
	} `json:"service"`
}

// Port is the Service's port by name or number; empty where there is none.
func (b IngressBackend) Port() string {
	switch {
	case b.Service == nil:
		return ""
	case b.Service.Port.Name != "":
		return b.Service.Port.Name
	}
	return strconv.Itoa(int(b.Service.Port.Number))
}
