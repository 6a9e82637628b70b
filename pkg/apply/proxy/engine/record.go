package engine

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program/web"
)

// StatusClientGone is nginx's number for a client that left.
const StatusClientGone = 499

// Observer is told what happens.
type Observer interface {
	// Done is called once for each request, after its last byte.
	Done(*Record)
	// Connections is a change in open connections; 0 is one refused.
	Connections(delta int)
}

// Record is one request, for metrics and logs.
type Record struct {
	Start    time.Time
	Duration time.Duration
	Client   netip.Addr
	Method   string
	Host     string
	URI      string
	Proto    string
	TLS      bool
	// Status is 499 where the client left before an answer.
	Status            int
	BytesIn, BytesOut int64
	Ingress           cluster.ObjectName
	Backend           web.BackendID
	Endpoint          string
	Attempts          int
	ID                string
	UserAgent         string
	Referer           string
	// Quiet asks for no line in the access log.
	Quiet bool
	// Error is why the proxy itself answered, if it was not asked to.
	Error string
}

// Take notes the route that was found.
func (r *Record) Take(route *web.Route) {
	r.Ingress, r.Backend, r.Quiet = route.Ingress, route.Backend, route.NoAccessLog
}

// Refusal is the body of an answer in the proxy's own name. why is for
// people; it holds nothing of the cluster.
func Refusal(status int, why string) string {
	return strconv.Itoa(status) + " " + http.StatusText(status) + ": " + why + "\n"
}

// HasEscapedSlash reports whether a path in normal form has an escaped slash
// or backslash.
func HasEscapedSlash(path string) bool {
	return strings.Contains(path, "%2F") || strings.Contains(path, "%5C")
}

// Admits reports whether a route lets a client in.
func Admits(o *web.Options, client netip.Addr) bool {
	return !Within(o.Deny, client) && (len(o.Allow) == 0 || Within(o.Allow, client))
}

// What is said in more than one place.
const (
	NoHost       = "the Host header is no host name"
	NoMethod     = "this method is not served"
	NoRoute      = "no route for this host and path"
	EscapedSlash = "the path has an escaped slash"
	NoRewrite    = "the path cannot be rewritten"
	Closed       = "this route is closed: its configuration cannot be followed safely"
	NotAdmitted  = "your address is not admitted here"
	TooLarge     = "the request's body is larger than the route allows"
	BadBody      = "the request's body is malformed, or did not come"
	NoAnswer     = "the back end gave no valid answer"
	LateAnswer   = "the back end did not answer in time"
	ClientGone   = "the client left"
)

type nobody struct{}

func (nobody) Done(*Record)    {}
func (nobody) Connections(int) {}
