// Package way is the words of an explanation: what was asked, all that is known,
// the cases to look at, hops and the report. Inputs are the API's objects, what
// nodes hold and what they should hold; outputs are the ways that a request may
// take. It refuses to judge them, which the packages of pkg/trace/hops do.
package way

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Class names a kind of hop. docs/trace.md says what each looks at.
type Class string

// The classes.
const (
	DNS            Class = "dns"
	Entry          Class = "entry"
	Firewall       Class = "firewall"
	IngressClass   Class = "ingress-class"
	IngressRoute   Class = "ingress-route"
	IngressTLS     Class = "ingress-tls"
	IngressProgram Class = "ingress-program"
	Service        Class = "service"
	Endpoints      Class = "endpoints"
	ServiceProgram Class = "service-program"
	Conntrack      Class = "conntrack"
	PolicyEgress   Class = "policy-egress"
	Route          Class = "route"
	Sysctl         Class = "sysctl"
	Overlay        Class = "overlay"
	Underlay       Class = "underlay"
	MTU            Class = "mtu"
	Decapsulation  Class = "decapsulation"
	Guard          Class = "guard"
	PolicyIngress  Class = "policy-ingress"
	PodLink        Class = "pod-link"
	PodAddress     Class = "pod-address"
	PodRoute       Class = "pod-route"
	Socket         Class = "socket"
	Return         Class = "return"
	Node           Class = "node"
	AddressRange   Class = "address-range"
	Daemon         Class = "daemon"
)

// Classes are all of them; the exit code of poplinctl trace is 10 and the
// place in this list.
func Classes() []Class {
	return []Class{
		DNS, Entry, Firewall, IngressClass, IngressRoute, IngressTLS, IngressProgram, Service, Endpoints, ServiceProgram,
		Conntrack, PolicyEgress, Route, Sysctl, Overlay, Underlay, MTU, Decapsulation, Guard, PolicyIngress,
		PodLink, PodAddress, PodRoute, Socket, Return, Node, AddressRange, Daemon,
	}
}

// Status is a hop's.
type Status string

// Statuses, from good to bad.
const (
	OK      Status = "OK"
	Unknown Status = "UNKNOWN"
	Suspect Status = "SUSPECT"
	Broken  Status = "BROKEN"
)

// Hop is one step of the way.
type Hop struct {
	Hop Class `json:"hop"`
	// Node is where it is; empty for what is the whole cluster's.
	Node string `json:"node,omitempty"`
	// About is what was looked at.
	About    string   `json:"about"`
	Status   Status   `json:"status"`
	Evidence []string `json:"evidence,omitempty"`
	// Cause says in a line why, and Cure is the command that mends it.
	Cause string `json:"cause,omitempty"`
	Cure  string `json:"cure,omitempty"`
}

// Saw adds a line of evidence.
func (h *Hop) Saw(format string, args ...any) {
	h.Evidence = append(h.Evidence, fmt.Sprintf(format, args...))
}

// Broken says why the hop does not let the packet pass; the first reason stays.
func (h *Hop) Broken(cure, format string, args ...any) { h.set(Broken, cure, format, args...) }

// Suspect says what may be wrong, with the command that mends it.
func (h *Hop) Suspect(cure, format string, args ...any) { h.set(Suspect, cure, format, args...) }

// Unknown says what could not be looked at.
func (h *Hop) Unknown(format string, args ...any) { h.set(Unknown, "", format, args...) }

func (h *Hop) set(s Status, cure, format string, args ...any) {
	if rank(s) <= rank(h.Status) {
		return
	}
	h.Status, h.Cure = s, cure
	if h.Cause = fmt.Sprintf(format, args...); h.Cause == "" {
		h.Cause = "the node did not say"
	}
}

func rank(s Status) int { return slices.Index([]Status{OK, Unknown, Suspect, Broken}, s) }

// Report is the answer.
type Report struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Status is the worst hop's; Hop is the first that is broken.
	Status Status    `json:"status"`
	Hop    Class     `json:"hop,omitempty"`
	Node   string    `json:"node,omitempty"`
	Cause  string    `json:"cause,omitempty"`
	Cure   string    `json:"cure,omitempty"`
	Taken  time.Time `json:"taken"`
	// Memory is whose knowledge this rests on, where the API server is away.
	Memory *Memory `json:"lastGood,omitempty"`
	Hops   []Hop   `json:"hops"`
	// Sections are between which things the request goes.
	Sections []Section `json:"sections,omitempty"`
	// Probe is what became of real packets, where some were looked for.
	Probe []Witness `json:"probe,omitempty"`
}

// At has the cures, which name the manifests' namespace, name the one that Poplin's
// pods are in; empty where that is not known.
func (r *Report) At(namespace string) {
	if namespace == "" {
		return
	}
	mine := strings.NewReplacer("-n poplin-system ", "-n "+namespace+" ")
	r.Cure = mine.Replace(r.Cure)
	for i := range r.Hops {
		r.Hops[i].Cure = mine.Replace(r.Hops[i].Cure)
	}
}

// Conclude names the hop.
func (r *Report) Conclude() {
	r.Status = OK
	for _, h := range r.Hops {
		if rank(h.Status) > rank(r.Status) {
			r.Status, r.Hop, r.Node, r.Cause, r.Cure = h.Status, h.Hop, h.Node, h.Cause, h.Cure
		}
	}
}
