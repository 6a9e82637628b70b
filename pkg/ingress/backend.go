package ingress

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program/web"
)

// authorize is the one place that decides whether an Ingress of a namespace
// may use a Service or a Secret: those of its own namespace, and no others.
func authorize(namespace, kind string, to cluster.ObjectName) error {
	if namespace == to.Namespace {
		return nil
	}
	return fmt.Errorf("names %s %s, which is in another namespace than the Ingress: copy it to %s", kind, to, namespace)
}

// compileBackend finds the endpoints behind a Service's port.
func (c *Compiler) compileBackend(p *web.Program, id web.BackendID) {
	if c.byBackend[id] == nil {
		delete(p.Backends, id)
		delete(c.backendProblems, id)
		return
	}
	b, problem := c.endpoints(id)
	if old := p.Backends[id]; old == nil || !sameBackend(old, b) {
		p.Backends[id] = b
	}
	if problem != c.backendProblems[id] {
		c.backendProblems[id] = problem
		for n := range c.byBackend[id] {
			c.report[n] = true
		}
	}
}

// endpoints never fails: a back end without endpoints answers 503, and the
// problem says why.
func (c *Compiler) endpoints(id web.BackendID) (b *web.Backend, problem string) {
	b = &web.Backend{ID: id, Protocol: web.HTTP}
	s := c.services[id.Service]
	switch {
	case s == nil:
		return b, fmt.Sprintf("Service %s does not exist", id.Service)
	case s.Type == "ExternalName":
		return b, fmt.Sprintf("Service %s is of type ExternalName, which is not followed: it could name anything the proxy reaches", id.Service)
	}
	i := slices.IndexFunc(s.Ports, func(p cluster.ServicePort) bool {
		return p.Name == id.Port && p.Name != "" || strconv.Itoa(int(p.Port)) == id.Port
	})
	if i < 0 {
		return b, fmt.Sprintf("Service %s has no TCP port %s", id.Service, id.Port)
	}
	port := s.Ports[i]
	switch port.AppProtocol {
	case "kubernetes.io/h2c", "grpc":
		b.Protocol = web.H2C
	case "https":
		b.Protocol = web.HTTPS
	}
	refused := 0
	for _, slice := range c.slices[id.Service] {
		refused += gather(b, slice, port.Name)
	}
	for _, list := range []*[]netip.AddrPort{&b.Ready, &b.Draining} {
		slices.SortFunc(*list, netip.AddrPort.Compare)
		*list = slices.Compact(*list)
	}
	switch {
	case refused > 0:
		problem = fmt.Sprintf("Service %s has %d endpoints at addresses that no pod has; they are not used", id.Service, refused)
	case len(b.Ready)+len(b.Draining) == 0:
		problem = fmt.Sprintf("Service %s has no ready endpoint for port %s", id.Service, id.Port)
	}
	return b, problem
}

// gather adds a slice's endpoints. It refuses addresses of the proxy's own
// host or link, which whoever may write EndpointSlices could aim at.
func gather(b *web.Backend, slice *cluster.EndpointSlice, name string) (refused int) {
	i := slices.IndexFunc(slice.Ports, func(p cluster.EndpointPort) bool { return p.Name == name })
	if i < 0 || slice.Ports[i].Port == 0 {
		return 0
	}
	for _, e := range slice.Endpoints {
		a := e.Addr
		if !a.IsValid() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified() || a.Zone() != "" {
			refused++
			continue
		}
		at := netip.AddrPortFrom(a, slice.Ports[i].Port)
		switch {
		case e.Ready:
			b.Ready = append(b.Ready, at)
		case e.Serving:
			b.Draining = append(b.Draining, at)
		}
	}
	return refused
}

func sameBackend(a, b *web.Backend) bool {
	return a.Protocol == b.Protocol && slices.Equal(a.Ready, b.Ready) && slices.Equal(a.Draining, b.Draining)
}
