package trace

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program/web"
)

// Request is what decides where an HTTP request goes.
type Request struct {
	// TLS is how it comes in; the server name is then the host's.
	TLS bool
	// Host is the Host header, Path the escaped path without a query.
	Host, Path string
	// Client is the address it comes from, as the proxy believes it.
	Client netip.Addr
}

// Answer is a request's fate.
type Answer struct {
	// Refused says that no certificate covers the name: there is no
	// connection, and no answer.
	Refused bool
	// Status is what the proxy answers itself; 0 where an endpoint does.
	Status int
	// Route is the one that took the request; nil if none did.
	Route *web.Route
	// Certificate is the one that is shown.
	Certificate *web.Certificate
	// Endpoints may be asked, with Path.
	Endpoints []netip.AddrPort
	Path      string
	Steps     []string
}

// HTTP walks one request through the Ingress controller's table, as the proxy
// does: certificate, host, path, guards, endpoints. Logins depend on more than
// the table; they are named and taken for granted.
func HTTP(p *web.Program, r Request) Answer {
	w := &journey{program: p, request: r}
	w.walk()
	w.answer.Steps = w.verdict.Steps
	return w.answer
}

type journey struct {
	steps
	program *web.Program
	request Request
	answer  Answer
}

func (w *journey) say(status int, format string, args ...any) {
	w.step(format, args...)
	w.answer.Status = status
}

func (w *journey) walk() {
	host, ok := web.HostName(w.request.Host)
	if w.request.TLS && !w.covered(host) {
		return
	}
	if !ok {
		w.say(400, "%q is no host name", w.request.Host)
		return
	}
	path, err := web.Clean(w.request.Path)
	if err != nil {
		w.say(400, "the %s", err)
		return
	}
	if path != w.request.Path {
		w.step("the path is read as %s", path)
	}
	if w.find(host, path); w.answer.Route == nil {
		return
	}
	if w.admitted() {
		w.forward(path)
	}
}

// covered chooses a certificate.
func (w *journey) covered(host string) bool {
	c := w.program.Covers(host)
	if c == nil {
		w.answer.Refused = true
		w.step("no certificate covers %q, and there is no default one: the connection is refused", host)
		return false
	}
	w.answer.Certificate = c
	w.step("certificate of Secret %s, valid until %s", c.Secret, c.NotAfter.Format("2006-01-02"))
	return true
}

// find names the host and the path that take the request.
func (w *journey) find(host, path string) {
	h := w.program.Host(host)
	switch {
	case h == nil:
		w.step("no Ingress has the host %s", host)
	case h.Name == host:
		w.step("host %s", host)
	default:
		w.step("host %s, by %s", host, cmp.Or(h.Name, "the Ingresses without a host"))
	}
	r := w.program.Match(host, path)
	if w.answer.Route = r; r == nil {
		w.say(404, "no path of it matches %s", path)
		return
	}
	switch {
	case h != nil && h.Match(path) == r && r.Path != "" && r != h.Default:
		w.step("Ingress %s: path %s (%s)", r.Ingress, r.Path, r.Type)
	case r.Ingress != (cluster.ObjectName{}):
		w.step("Ingress %s: default back end", r.Ingress)
	default:
		w.step("the controller's default back end")
	}
}

// admitted asks the guards in the proxy's order.
func (w *journey) admitted() bool {
	o := w.answer.Route.Options
	if o == nil {
		return true
	}
	within := func(list []netip.Prefix) bool {
		return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(w.request.Client) })
	}
	switch {
	case o.Closed != "":
		w.say(503, "the route is closed: %s", o.Closed)
	case o.ToHTTPS && !w.request.TLS:
		w.say(308, "redirected to HTTPS")
	case within(o.Deny) || len(o.Allow) > 0 && !within(o.Allow):
		w.say(403, "%s is not admitted", w.request.Client)
	case o.Redirect.To != "":
		w.say(o.Redirect.Code, "redirected to %s", o.Redirect.To)
	default:
		if o.Basic != nil {
			w.step("asks for a name and password of Secret %s", o.Basic.Secret)
		}
		if o.External != nil {
			w.step("asks another server whether the client may")
		}
		return true
	}
	return false
}

// forward names the endpoints.
func (w *journey) forward(path string) {
	r := w.answer.Route
	to, ok := r.Rewritten(path)
	if !ok {
		w.say(400, "the path cannot be rewritten as %s", r.Rewrite)
		return
	}
	if w.answer.Path = to; to != path {
		w.step("the path becomes %s", to)
	}
	if b := w.program.Backends[r.Backend]; b != nil {
		w.answer.Endpoints = b.Endpoints()
	}
	if len(w.answer.Endpoints) == 0 {
		w.say(503, "Service %s has no ready endpoint", r.Backend)
		return
	}
	list := make([]string, len(w.answer.Endpoints))
	for i, e := range w.answer.Endpoints {
		list[i] = e.String()
	}
	w.step("Service %s: one of %s", r.Backend, strings.Join(list, ", "))
}
