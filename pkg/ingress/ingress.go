// Package ingress compiles Ingresses and what they refer to into a proxy's
// program. Inputs are cluster values, one object at a time; outputs are an
// immutable web.Program, the findings about each Ingress, and the Secrets
// that must be read. A change compiles the hosts and back ends it touches and
// no others. It refuses whatever crosses a namespace, and what it refuses is
// a finding for the Ingress' owner, never an error: one broken Ingress harms
// no other.
package ingress

import (
	"maps"
	"net/netip"
	"slices"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/ingress/index"
	"poplin.dev/poplin/pkg/program/web"
)

// Controller is the spec.controller of Poplin's IngressClasses.
const Controller = "poplin.dev/ingress"

// Config is what the administrator decides for all Ingresses.
type Config struct {
	// Controllers are the controller names whose classes are served.
	Controllers []string
	// DefaultBackend takes what no Ingress takes.
	DefaultBackend web.BackendID
	// DefaultCertificate names the Secret for server names that no Ingress
	// has a certificate for.
	DefaultCertificate cluster.ObjectName
	// OneNamespacePerHost gives a host to the namespace of its oldest
	// Ingress; otherwise Ingresses of several namespaces share hosts.
	OneNamespacePerHost bool
}

// Finding is something an Ingress' owner should know.
type Finding struct {
	Reason reason.Reason `json:"reason"`
	// Text names the field or annotation, its value and the cure.
	Text string `json:"text"`
}

// Result is what a compilation found.
type Result struct {
	Program *web.Program
	// Findings hold, for each Ingress that was looked at again, everything
	// that is to be said about it now. For one that is gone or not ours the
	// list is nil; for others it is not, though it may be empty.
	Findings map[cluster.ObjectName][]Finding
}

// Compiler holds the objects and the program made of them. It is not safe
// for concurrent use.
type Compiler struct {
	cfg Config

	classes   map[string]cluster.IngressClass
	ingresses map[cluster.ObjectName]*cluster.Ingress
	services  map[cluster.ObjectName]*cluster.Service
	slices    map[cluster.ObjectName]map[string]*cluster.EndpointSlice
	// secrets holds what is known of the Secrets that are wanted: nil is
	// "there is none".
	secrets map[cluster.ObjectName]*secret

	claims map[cluster.ObjectName]*claim
	// The indexes below say whom a change touches.
	byHost    index.Of[string]
	bySecret  index.Of[cluster.ObjectName]
	byBackend index.Of[web.BackendID]
	byService map[cluster.ObjectName]map[web.BackendID]bool
	wanted    []cluster.ObjectName // the keys of bySecret; nil: to be listed

	dirtyIngresses set[cluster.ObjectName]
	dirtyHosts     set[string]
	dirtyBackends  set[web.BackendID]
	// report is whose findings changed.
	report set[cluster.ObjectName]

	program         *web.Program
	hostFindings    map[string]map[cluster.ObjectName][]Finding
	backendProblems map[web.BackendID]string
}

type set[K comparable] map[K]bool

// New makes a compiler that knows no object.
func New(cfg Config) *Compiler {
	c := &Compiler{
		cfg:       cfg,
		classes:   map[string]cluster.IngressClass{},
		ingresses: map[cluster.ObjectName]*cluster.Ingress{},
		services:  map[cluster.ObjectName]*cluster.Service{},
		slices:    map[cluster.ObjectName]map[string]*cluster.EndpointSlice{},
		secrets:   map[cluster.ObjectName]*secret{},
		claims:    map[cluster.ObjectName]*claim{},
		byHost:    index.Of[string]{}, bySecret: index.Of[cluster.ObjectName]{}, byBackend: index.Of[web.BackendID]{},
		byService:      map[cluster.ObjectName]map[web.BackendID]bool{},
		dirtyIngresses: set[cluster.ObjectName]{}, dirtyHosts: set[string]{}, dirtyBackends: set[web.BackendID]{},
		report: set[cluster.ObjectName]{},
		program: &web.Program{
			Hosts: map[string]*web.Host{}, Backends: map[web.BackendID]*web.Backend{}, Certificates: map[string]*web.Certificate{},
		},
		hostFindings:    map[string]map[cluster.ObjectName][]Finding{},
		backendProblems: map[web.BackendID]string{},
	}
	if id := cfg.DefaultBackend; id != (web.BackendID{}) {
		c.program.Default = &web.Route{Ingress: cluster.ObjectName{Name: "(default backend)"}, Backend: id, Options: &web.Options{}}
		c.uses(id, cluster.ObjectName{})
	}
	if n := cfg.DefaultCertificate; n != (cluster.ObjectName{}) {
		c.bySecret.Add(n, cluster.ObjectName{})
	}
	return c
}

// SetClass tells of an IngressClass; nil removes it.
func (c *Compiler) SetClass(name string, class *cluster.IngressClass) {
	if class == nil {
		delete(c.classes, name)
	} else {
		c.classes[name] = *class
	}
	for n := range c.ingresses {
		c.dirtyIngresses[n] = true
	}
}

// SetIngress tells of an Ingress; nil removes it.
func (c *Compiler) SetIngress(name cluster.ObjectName, i *cluster.Ingress) {
	if i == nil {
		delete(c.ingresses, name)
	} else {
		c.ingresses[name] = i
	}
	c.dirtyIngresses[name] = true
}

// SetService tells of a Service; nil removes it.
func (c *Compiler) SetService(name cluster.ObjectName, s *cluster.Service) {
	if s == nil {
		delete(c.services, name)
	} else {
		c.services[name] = s
	}
	c.touchService(name)
}

// SetEndpoints tells of an EndpointSlice of a Service; nil removes it.
func (c *Compiler) SetEndpoints(service cluster.ObjectName, slice string, s *cluster.EndpointSlice) {
	switch {
	case s == nil:
		delete(c.slices[service], slice)
		if len(c.slices[service]) == 0 {
			delete(c.slices, service)
		}
	case c.slices[service] == nil:
		c.slices[service] = map[string]*cluster.EndpointSlice{slice: s}
	default:
		c.slices[service][slice] = s
	}
	c.touchService(service)
}

func (c *Compiler) touchService(name cluster.ObjectName) {
	for id := range c.byService[name] {
		c.dirtyBackends[id] = true
	}
}

// SetSecret tells of a Secret that is wanted; nil says there is none.
func (c *Compiler) SetSecret(name cluster.ObjectName, s *cluster.Secret) {
	if c.bySecret[name] == nil {
		return
	}
	if s == nil {
		c.secrets[name] = nil
	} else {
		c.secrets[name] = &secret{Secret: *s}
	}
	for n := range c.bySecret[name] {
		c.dirtyIngresses[n] = true
	}
}

// Wanted are the Secrets that somebody refers to, in order. The list is not to
// be changed.
func (c *Compiler) Wanted() []cluster.ObjectName {
	if c.wanted == nil {
		c.wanted = slices.SortedFunc(maps.Keys(c.bySecret), cluster.ObjectName.Compare)
	}
	return c.wanted
}

// Pending are the wanted Secrets of which nothing was heard: until there are
// none, a first program is not complete.
func (c *Compiler) Pending() (pending []cluster.ObjectName) {
	for _, n := range c.Wanted() {
		if _, known := c.secrets[n]; !known {
			pending = append(pending, n)
		}
	}
	return pending
}

// Known reports whether everything an Ingress refers to was heard of: before
// that its findings may be about what is only late.
func (c *Compiler) Known(n cluster.ObjectName) bool {
	cl := c.claims[n]
	return cl == nil || !slices.ContainsFunc(cl.secrets, func(s cluster.ObjectName) bool {
		_, known := c.secrets[s]
		return !known
	})
}

// Front is the Service in front of the proxy and its ready endpoints.
func (c *Compiler) Front(n cluster.ObjectName) (s *cluster.Service, ready []netip.Addr) {
	for _, slice := range c.slices[n] {
		for _, e := range slice.Endpoints {
			if e.Ready {
				ready = append(ready, e.Addr)
			}
		}
	}
	slices.SortFunc(ready, netip.Addr.Compare)
	return c.services[n], slices.Compact(ready)
}

// Serves reports whether an Ingress is ours.
func (c *Compiler) Serves(n cluster.ObjectName) bool { return c.claims[n] != nil }

// Ingress is an Ingress as it was told of; nil if there is none.
func (c *Compiler) Ingress(n cluster.ObjectName) *cluster.Ingress { return c.ingresses[n] }

// All marks everything to be looked at again: certificates expire without
// anybody saying so.
func (c *Compiler) All() {
	for n := range c.ingresses {
		c.dirtyIngresses[n] = true
	}
	for id := range c.byBackend {
		c.dirtyBackends[id] = true
	}
}

// Compile looks at what changed since the last call.
func (c *Compiler) Compile(now time.Time) Result {
	for n := range c.dirtyIngresses {
		c.reclaim(n)
	}
	next := *c.program
	if len(c.dirtyHosts) > 0 {
		next.Hosts, next.Certificates = maps.Clone(next.Hosts), maps.Clone(next.Certificates)
	}
	for name := range c.dirtyHosts {
		c.compileHost(&next, name, now)
	}
	if len(c.dirtyBackends) > 0 {
		next.Backends = maps.Clone(next.Backends)
	}
	for id := range c.dirtyBackends {
		c.compileBackend(&next, id)
	}
	next.DefaultCertificate = c.defaultCertificate()
	maps.DeleteFunc(c.secrets, func(n cluster.ObjectName, _ *secret) bool { return c.bySecret[n] == nil })
	c.program = &next
	r := Result{Program: &next, Findings: map[cluster.ObjectName][]Finding{}}
	for n := range c.report {
		if n != (cluster.ObjectName{}) {
			r.Findings[n] = c.findings(n)
		}
	}
	clear(c.dirtyIngresses)
	clear(c.dirtyHosts)
	clear(c.dirtyBackends)
	clear(c.report)
	return r
}

// findings gathers what is to be said about one Ingress.
func (c *Compiler) findings(n cluster.ObjectName) []Finding {
	cl := c.claims[n]
	if cl == nil {
		return nil
	}
	list := append([]Finding{}, cl.findings...)
	for _, h := range cl.hosts {
		list = append(list, c.hostFindings[h][n]...)
	}
	for _, id := range cl.backends {
		if p := c.backendProblems[id]; p != "" {
			list = append(list, Finding{reason.BackendUnavailable, p})
		}
	}
	return list
}

// reclaim replaces what an Ingress claims.
func (c *Compiler) reclaim(n cluster.ObjectName) {
	c.report[n] = true
	var before, after []cluster.ObjectName
	if old := c.claims[n]; old != nil {
		before = old.secrets
		delete(c.claims, n)
		for _, h := range old.hosts {
			c.byHost.Remove(h, n)
			c.dirtyHosts[h] = true
		}
		for _, s := range old.secrets {
			c.bySecret.Remove(s, n)
		}
		for _, id := range old.backends {
			c.unuses(id, n)
		}
	}
	if i := c.ingresses[n]; i != nil && c.serves(i) {
		cl := c.claim(i)
		after = cl.secrets
		c.claims[n] = cl
		for _, h := range cl.hosts {
			c.byHost.Add(h, n)
			c.dirtyHosts[h] = true
		}
		for _, s := range cl.secrets {
			c.bySecret.Add(s, n)
		}
		for _, id := range cl.backends {
			c.uses(id, n)
		}
	}
	if !slices.Equal(before, after) {
		c.wanted = nil
	}
}

func (c *Compiler) uses(id web.BackendID, n cluster.ObjectName) {
	if c.byBackend[id] == nil {
		c.dirtyBackends[id] = true
	}
	c.byBackend.Add(id, n)
	if c.byService[id.Service] == nil {
		c.byService[id.Service] = map[web.BackendID]bool{}
	}
	c.byService[id.Service][id] = true
}

func (c *Compiler) unuses(id web.BackendID, n cluster.ObjectName) {
	c.byBackend.Remove(id, n)
	if c.byBackend[id] != nil {
		return
	}
	c.dirtyBackends[id] = true
	delete(c.byService[id.Service], id)
	if len(c.byService[id.Service]) == 0 {
		delete(c.byService, id.Service)
	}
}
