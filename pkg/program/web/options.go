package web

import (
	"crypto/x509"
	"net/netip"
	"regexp"
	"time"

	"poplin.dev/poplin/pkg/cluster"
)

// Options are one Ingress's wishes for its routes. The zero value asks for
// nothing; times and sizes of 0 mean the proxy's own default.
type Options struct {
	// Closed, if set, refuses every request: the reason is one of security
	// that could not be understood or is not supported.
	Closed string

	// ToHTTPS redirects plain HTTP.
	ToHTTPS bool
	// HSTS is the Strict-Transport-Security header of HTTPS answers.
	HSTS string
	// Redirect answers every request itself.
	Redirect Redirect

	// BodyLimit is the largest request body in bytes; 0 is no limit.
	BodyLimit int64
	// Connect bounds the connection to an endpoint. Read and Send bound how
	// long an endpoint is silent, and how long it takes nothing.
	Connect, Read, Send time.Duration

	// Allow and Deny are the clients' ranges; Deny wins. Empty Allow is all.
	Allow, Deny []netip.Prefix
	Basic       *BasicAuth
	External    *ExternalAuth

	CORS     *CORS
	Affinity *Affinity

	Upstream Upstream
	// NoAccessLog keeps requests out of the access log.
	NoAccessLog bool
}

// Redirect is an answer that sends the client elsewhere.
type Redirect struct {
	To   string
	Code int
}

// Upstream says how to speak with the endpoints.
type Upstream struct {
	Protocol Protocol
	// Host replaces the Host header.
	Host string
	// ServerName is checked against, and sent to, a TLS endpoint.
	ServerName string
	// Insecure accepts any certificate.
	Insecure bool
	// Roots verify the endpoint; nil is the system's. RootsID is equal for
	// equal Roots.
	Roots   *x509.CertPool
	RootsID string
}

// BasicAuth is RFC 7617.
type BasicAuth struct {
	Realm  string
	Secret cluster.ObjectName
	// Users is user name to password hash, as htpasswd writes them.
	Users map[string]string
}

// ExternalAuth asks another server about each request.
type ExternalAuth struct {
	URL Template
	// SignIn is where a browser is sent when the answer is 401.
	SignIn Template
	// Headers of the answer are copied into the request.
	Headers []string
}

// CORS answers and marks cross-origin requests.
type CORS struct {
	// Any allows every origin; else Origins, or Patterns with one label open.
	Any           bool
	Origins       map[string]bool
	Patterns      []*regexp.Regexp
	Methods       string
	Headers       string
	Expose        string
	Credentials   bool
	MaxAgeSeconds int
}

// Affinity keeps a client with one endpoint by a cookie.
type Affinity struct {
	Cookie, Path, Domain string
	MaxAge               int
	SameSite             string
	Secure               bool
	// Move gives a client another endpoint when its own has failed.
	Move bool
}
