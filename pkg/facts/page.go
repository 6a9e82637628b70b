package facts

import (
	"fmt"
	"net/netip"
	"slices"
)

// Visit is a request about which a replica of the Ingress controller is asked.
type Visit struct {
	TLS    bool       `json:"tls,omitempty"`
	Host   string     `json:"host"`
	Path   string     `json:"path"`
	Client netip.Addr `json:"client,omitzero"`
}

// Served is what becomes of a visit by the table that a replica has.
type Served struct {
	// Status is what the proxy answers itself; 0 where an endpoint does.
	Status int `json:"status,omitempty"`
	// Route is the Ingress and path that take it, Backend what it leads to.
	Route     string           `json:"route,omitempty"`
	Backend   string           `json:"backend,omitempty"`
	Endpoints []netip.AddrPort `json:"endpoints,omitempty"`
	// Secret is the certificate's, Fingerprint the SHA-256 of the certificate
	// in hexadecimal. Nothing of its key is here.
	Secret      string `json:"secret,omitempty"`
	Fingerprint string `json:"fingerprint,omitempty"`
}

// Differs says how s is not what it should be; empty where it is.
func (s Served) Differs(want Served) string {
	switch {
	case s.Secret != want.Secret:
		return fmt.Sprintf("it shows %s, and should show %s", certificate(s), certificate(want))
	case s.Fingerprint != want.Fingerprint:
		return fmt.Sprintf("it shows another certificate than Secret %s has now", s.Secret)
	case s.Route != want.Route:
		return fmt.Sprintf("%s takes the request, and %s should", taker(s.Route), taker(want.Route))
	case s.Backend != want.Backend:
		return fmt.Sprintf("%s leads to %s, and should lead to %s", taker(s.Route), s.Backend, want.Backend)
	case s.Status != want.Status:
		return fmt.Sprintf("it answers %s, and should answer %s", status(s.Status), status(want.Status))
	}
	has, should := sorted(s.Endpoints), sorted(want.Endpoints)
	if !slices.Equal(has, should) {
		return fmt.Sprintf("it asks endpoints %v of %s, and should ask %v", has, s.Backend, should)
	}
	return ""
}

func certificate(s Served) string {
	if s.Secret == "" {
		return "no certificate"
	}
	return "the certificate of Secret " + s.Secret
}

func taker(route string) string {
	if route == "" {
		return "no route"
	}
	return route
}

func status(code int) string {
	if code == 0 {
		return "what an endpoint does"
	}
	return fmt.Sprint(code)
}

func sorted(list []netip.AddrPort) []netip.AddrPort {
	return slices.SortedFunc(slices.Values(list), netip.AddrPort.Compare)
}
