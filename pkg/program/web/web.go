// Package web is what an HTTP proxy should hold: hosts with their routes,
// back ends with their endpoints, certificates by name. Inputs are a compiler's
// fragments, one per host and back end; outputs are the answer to "which route
// does this request take" and stable text. A Program never changes once made:
// the next one shares what stayed the same. It refuses paths that two programs
// could read differently.
package web

import (
	"crypto/tls"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/cluster"
)

// Program is everything a proxy needs to know.
type Program struct {
	// Hosts is keyed by "shop.example.com", "*.example.com" or "" for
	// requests of every other host.
	Hosts map[string]*Host
	// Backends is keyed by what routes name.
	Backends map[BackendID]*Backend
	// Certificates is keyed like Hosts, by server name.
	Certificates map[string]*Certificate
	// DefaultCertificate answers every other server name; nil refuses them.
	DefaultCertificate *Certificate
	// Default takes what no host's route takes; nil answers 404.
	Default *Route
}

// Host is the routes of one host.
type Host struct {
	Name string
	// Exact is keyed by the normal form of the path.
	Exact map[string]*Route
	// Prefix is keyed by the normal form without a slash at the end; the
	// root is "".
	Prefix map[string]*Route
	// Depth is the number of path elements of the longest key in Prefix.
	Depth int
	// Regexp is in the order of precedence.
	Regexp []*Route
	// Default takes what no path takes.
	Default *Route
}

// Route is one path of one Ingress.
type Route struct {
	Ingress cluster.ObjectName
	// Host and Path are as the user wrote them.
	Host, Path string
	Type       cluster.PathType
	Backend    BackendID
	// Match is set for regular expressions; it matches from the path's start.
	Match *regexp.Regexp
	// Rewrite replaces the whole path; $1 to $9 are the groups of Match.
	Rewrite string
	*Options
}

// BackendID names a Service's port as an Ingress does: by name or number.
type BackendID struct {
	Service cluster.ObjectName
	Port    string
}

func (b BackendID) String() string { return b.Service.String() + ":" + b.Port }

// Backend is the endpoints of a Service's port.
type Backend struct {
	ID BackendID
	// Protocol is what the Service's appProtocol asks for; HTTP if nothing.
	Protocol Protocol
	// Ready take requests. Draining ones take them only while none is ready.
	Ready, Draining []netip.AddrPort
}

// Endpoints are those that take requests now.
func (b *Backend) Endpoints() []netip.AddrPort {
	if len(b.Ready) == 0 {
		return b.Draining
	}
	return b.Ready
}

// Protocol is how to speak with a back end.
type Protocol uint8

// The protocols of back ends. Auto leaves it to the Service's appProtocol.
const (
	Auto  Protocol = iota
	HTTP           // HTTP/1.1
	H2C            // HTTP/2 without TLS, which gRPC wants
	HTTPS          // HTTP/1.1 or HTTP/2 over TLS
	H2             // HTTP/2 over TLS
)

func (p Protocol) String() string {
	return [...]string{"auto", "http", "h2c", "https", "h2"}[p]
}

// TLS reports whether p is spoken over TLS.
func (p Protocol) TLS() bool { return p == HTTPS || p == H2 }

// Certificate is a key pair ready for use.
type Certificate struct {
	Secret   cluster.ObjectName
	NotAfter time.Time
	tls.Certificate
}

// String is one line per route, endpoint and certificate, sorted.
func (p *Program) String() string {
	var b strings.Builder
	for _, name := range sortedKeys(p.Hosts) {
		p.Hosts[name].write(&b)
	}
	if p.Default != nil {
		b.WriteString("otherwise -> " + p.Default.Backend.String() + "\n")
	}
	for _, id := range sortedBackends(p.Backends) {
		be := p.Backends[id]
		b.WriteString("backend " + id.String() + " " + be.Protocol.String())
		for _, a := range be.Ready {
			b.WriteString(" " + a.String())
		}
		for _, a := range be.Draining {
			b.WriteString(" (" + a.String() + ")")
		}
		b.WriteByte('\n')
	}
	for _, name := range sortedKeys(p.Certificates) {
		b.WriteString("certificate " + name + " " + p.Certificates[name].Secret.String() + "\n")
	}
	return b.String()
}

func (h *Host) write(b *strings.Builder) {
	name := h.Name
	if name == "" {
		name = "(any)"
	}
	line := func(kind, path string, r *Route) {
		b.WriteString("host " + name + " " + kind)
		if path != "" {
			b.WriteString(" " + path)
		}
		b.WriteString(" -> " + r.target() + " (" + r.Ingress.String() + ")\n")
	}
	for _, p := range sortedKeys(h.Exact) {
		line("exact", p, h.Exact[p])
	}
	for _, r := range h.Regexp {
		line("regexp", r.Path, r)
	}
	for _, p := range sortedKeys(h.Prefix) {
		line("prefix", p+"/", h.Prefix[p])
	}
	if h.Default != nil {
		line("default", "", h.Default)
	}
}

// target says what a route does, in a word or two.
func (r *Route) target() string {
	switch {
	case r.Options != nil && r.Closed != "":
		return "closed: " + r.Closed
	case r.Options != nil && r.Redirect.To != "":
		return "redirect " + strconv.Itoa(r.Redirect.Code) + " " + r.Redirect.To
	case r.Rewrite != "":
		return r.Backend.String() + " as " + r.Rewrite
	}
	return r.Backend.String()
}
