package trace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/kube/person"
	"poplin.dev/poplin/pkg/trace/way"
)

// name is what a person wrote: [kind/][namespace/]name[:port][/protocol].
type name struct {
	kind, namespace, name string
	addr                  netip.Addr
	port                  string
	proto                 service.Protocol
	url                   *url.URL
	// dns says that it is a name for the cluster's name server.
	dns bool
}

func (n name) key() service.Key { return service.Key{Namespace: n.namespace, Name: n.name} }

// domain is the cluster's, as nearly all have it.
const domain = "cluster.local"

// ofService reads NAME.NAMESPACE.svc, with or without the domain.
func ofService(host string) (name, namespace string, ok bool) {
	parts := strings.Split(strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(host, "."), domain), "."), ".")
	if len(parts) != 3 || parts[2] != "svc" {
		return "", "", false
	}
	return parts[0], parts[1], true
}

// inside has a URL of a Service, or of an address, stand for that: no Ingress
// is between.
func (n *name) inside(from *object.Pod) {
	if n.url == nil {
		return
	}
	host, port := n.url.Hostname(), n.url.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[n.url.Scheme]
	}
	service, namespace, ok := ofService(host)
	if !ok && from != nil && !strings.Contains(host, ".") {
		service, namespace, ok = host, from.Namespace, true
	}
	if a, err := netip.ParseAddr(host); err == nil {
		n.addr, n.port, n.url = a, port, nil
	} else if ok {
		n.kind, n.name, n.namespace, n.port, n.url, n.dns = "service", service, namespace, port, nil, true
	}
}

// alias finds a Service, or the one for whose name it stands.
func (g *gatherer) alias(ctx context.Context, t *way.Target, n name) (s object.Service, err error) {
	for range 4 { // an alias of an alias is rare, and may be a circle
		if s, err = g.objects.Service(ctx, n.key()); err != nil || s.Spec.Type != "ExternalName" {
			break
		}
		target := s.Spec.ExternalName
		service, namespace, ok := ofService(target)
		if !ok {
			if strings.Contains(target, ".svc.") {
				t.Unresolved = fmt.Sprintf("Service %s stands for %s, which is no name in the cluster's domain %s", s, target, domain)
			}
			return s, nil
		}
		t.Unresolved = ""
		alias := s.String()
		n.name, n.namespace = service, namespace
		if _, err := g.objects.Service(ctx, n.key()); errors.Is(err, person.ErrAbsent) {
			t.Unresolved = fmt.Sprintf("Service %s stands for %s, and there is no such Service", alias, target)
			return s, nil
		}
	}
	return s, err
}

var kinds = map[string]string{
	"pod": "pod", "pods": "pod", "po": "pod", "service": "service", "services": "service", "svc": "service", "node": "node", "nodes": "node", "no": "node",
}

// parse reads one end of a way.
func parse(text, namespace string) (n name, err error) {
	n.namespace, n.proto = namespace, service.TCP
	if strings.Contains(text, "://") {
		if n.url, err = url.Parse(text); err != nil {
			return n, err
		}
		if n.url.Scheme != "http" && n.url.Scheme != "https" || n.url.Host == "" {
			return n, fmt.Errorf("%q: write http://HOST/PATH or https://HOST/PATH", text)
		}
		return n, nil
	}
	rest := text
	for _, p := range []service.Protocol{service.TCP, service.UDP, service.SCTP} {
		if head, found := strings.CutSuffix(rest, "/"+p.String()); found {
			rest, n.proto = head, p
		}
	}
	if ap, err := netip.ParseAddrPort(rest); err == nil {
		n.addr, n.port = ap.Addr(), strconv.Itoa(int(ap.Port()))
		return n, nil
	}
	if a, err := netip.ParseAddr(strings.Trim(rest, "[]")); err == nil {
		n.addr = a
		return n, nil
	}
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		rest, n.port = rest[:i], rest[i+1:]
	}
	parts := strings.Split(rest, "/")
	if k := kinds[parts[0]]; k != "" && len(parts) > 1 {
		n.kind, parts = k, parts[1:]
	}
	switch {
	case slices.Contains(parts, "") || len(parts) > 2 || n.kind == "node" && len(parts) > 1:
		return n, fmt.Errorf("%q: write pod/NAME, service/NAME:PORT, NAMESPACE/NAME, node/NAME, ADDRESS:PORT or a URL", text)
	case len(parts) == 2:
		n.namespace = parts[0]
	}
	n.name = parts[len(parts)-1]
	return n, nil
}

// from finds where the request begins.
func (g *gatherer) from(ctx context.Context, text string) (way.End, error) {
	if text == "external" || text == "" {
		return way.End{}, nil
	}
	n, err := parse(text, g.conf.Namespace)
	switch {
	case err != nil:
		return way.End{}, err
	case n.addr.IsValid():
		return way.End{Addrs: []netip.Addr{n.addr}}, nil
	case n.url != nil, n.kind == "service":
		return way.End{}, fmt.Errorf("%q: requests begin at a pod, at a node, at an address or external", text)
	case n.kind == "node":
		for _, o := range g.in.Objects.Nodes {
			if o.Name == n.name {
				return way.End{Node: o.Name, Addrs: o.Addresses()}, nil
			}
		}
		return way.End{}, fmt.Errorf("there is no node %q", n.name)
	}
	p, err := g.objects.Pod(ctx, n.key())
	if errors.Is(err, person.ErrAbsent) {
		return way.End{}, g.absent("pod", n)
	} else if err != nil {
		return way.End{}, err
	}
	g.in.Objects.Pods = append(g.in.Objects.Pods, p)
	return way.End{Pod: &p, Node: p.Spec.NodeName, Addrs: p.Addresses()}, nil
}

// to finds where it should end. That it is not there is a finding, no error.
func (g *gatherer) to(ctx context.Context, text string) (way.Target, error) {
	n, err := parse(text, g.conf.Namespace)
	if err != nil {
		return way.Target{}, err
	}
	t := way.Target{Name: text, Proto: n.proto}
	n.inside(g.in.From.Pod)
	switch {
	case n.url != nil:
		return g.web(ctx, n.url, t)
	case n.addr.IsValid():
		return g.address(ctx, n, t)
	case n.kind == "node":
		o, found := g.in.Objects.Node(n.name)
		if !found {
			t.Missing = "there is no node " + n.name
		}
		t.Addrs, t.Port = o.Addresses(), number(n.port)
		return t, nil
	}
	if n.kind != "pod" {
		s, err := g.alias(ctx, &t, n)
		if err == nil {
			t.ByName, t.Asked = true, n.name+"."+n.namespace+".svc."+domain+"."
			return t, g.service(ctx, &t, s, n.port)
		}
		if !errors.Is(err, person.ErrAbsent) {
			return t, err
		}
	}
	if n.kind != "service" {
		p, err := g.objects.Pod(ctx, n.key())
		if err == nil {
			g.in.Objects.Pods = append(g.in.Objects.Pods, p)
			t.Pod, t.Addrs = &p, p.Addresses()
			if t.Port = number(n.port); t.Port == 0 {
				if t.Port, _ = p.Port(n.port, t.Proto); t.Port == 0 && len(p.Declared(t.Proto)) > 0 && !g.objects.Away() {
					t.Port = p.Declared(t.Proto)[0]
				}
			}
			return t, nil
		}
		if !errors.Is(err, person.ErrAbsent) {
			return t, err
		}
	}
	if g.objects.Away() {
		return t, g.absent(cmp.Or(n.kind, "Service or pod"), n)
	}
	if n.dns {
		t.ByName, t.Unresolved = true, fmt.Sprintf("%s is the name of no Service: there is no %s in namespace %s", text, n.name, n.namespace)
		return t, nil
	}
	t.Missing = g.absent(cmp.Or(n.kind, "Service or pod"), n).Error()
	return t, nil
}

func number(text string) uint16 {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// service fills in a Service's port, addresses and all that belongs to it.
func (g *gatherer) service(ctx context.Context, t *way.Target, s object.Service, port string) error {
	t.Service, t.Addrs, t.Port = &s, s.ClusterIPs(), number(port)
	outside := g.in.From.Pod == nil && g.in.From.Node == ""
	for _, p := range s.Spec.Ports {
		if port == "" || p.Name == port || p.Port == t.Port {
			t.Port, t.Proto = p.Port, p.Proto()
			if outside {
				t.Addrs, t.Port = g.outer(s, p)
			}
			break
		}
	}
	if outside && len(t.Addrs) == 0 {
		t.Addrs = s.ClusterIPs()
	}
	list, err := g.objects.Slices(ctx, s.Key())
	if err != nil {
		return err
	}
	// Slices that are kept by hand may lead to any namespace.
	namespace := s.Namespace
	if len(s.Spec.Selector) == 0 {
		namespace = ""
	}
	pods, err := g.objects.PodsOf(ctx, namespace)
	g.in.Objects.Slices = append(g.in.Objects.Slices, list...)
	g.in.Objects.Pods = append(g.in.Objects.Pods, pods...)
	if outside && s.Spec.External == "Local" {
		g.nearest(t)
	}
	if len(t.Addrs) == 0 { // headless: the client asks the pods themselves
		g.headless(t)
	}
	return err
}

// nearest leaves out nodes without an endpoint, to which no load balancer
// turns; if all are, the policy is the fault.
func (g *gatherer) nearest(t *way.Target) {
	port, _ := t.ServicePort()
	near := slices.DeleteFunc(slices.Clone(t.Addrs), func(a netip.Addr) bool {
		node := g.in.NodeOf(a)
		return node != "" && !slices.ContainsFunc(g.in.Ready(t.Service, port, a.Is4()), func(e way.ReadyEndpoint) bool { return e.Node == node })
	})
	if len(near) > 0 {
		t.Addrs = near
	}
}

// outer is where clients outside reach a Service's port: at its load
// balancer, or at its node port.
func (g *gatherer) outer(s object.Service, p object.ServicePort) ([]netip.Addr, uint16) {
	if addrs := s.Outer(); len(addrs) > 0 {
		return addrs, p.Port
	}
	if p.NodePort == 0 {
		return nil, p.Port
	}
	var addrs []netip.Addr
	for _, n := range g.in.Objects.Nodes {
		addrs = append(addrs, n.Addresses()...)
	}
	return addrs, p.NodePort
}

// headless has the endpoints' addresses as those of the name.
func (g *gatherer) headless(t *way.Target) {
	port, ok := t.ServicePort()
	if !ok {
		return
	}
	for _, ipv4 := range []bool{true, false} {
		for _, e := range g.in.Ready(t.Service, port, ipv4) {
			t.Addrs = append(t.Addrs, e.At.Addr())
			t.Port = e.At.Port()
		}
	}
	if len(t.Addrs) > 0 {
		t.Service = nil // nothing is translated
	}
}

// address finds out whose an address is.
func (g *gatherer) address(ctx context.Context, n name, t way.Target) (way.Target, error) {
	t.Addrs, t.Port = []netip.Addr{n.addr}, number(n.port)
	pods, err := g.objects.PodsAt(ctx, n.addr)
	if err != nil {
		return t, err
	}
	if len(pods) == 0 && g.in.InPodRange(n.addr) { // the field has a pod's first address only
		if pods, err = g.objects.PodsOf(ctx, ""); err != nil {
			return t, err
		}
	}
	g.in.Objects.Pods = append(g.in.Objects.Pods, pods...)
	if t.Pod = g.in.Objects.PodAt(n.addr); t.Pod != nil {
		return t, nil
	}
	services, err := g.objects.Services(ctx)
	if err != nil {
		return t, err
	}
	for _, s := range services {
		node := g.in.NodeOf(n.addr) != ""
		for _, p := range s.Spec.Ports {
			inside := slices.Contains(s.ClusterIPs(), n.addr) || slices.Contains(s.Outer(), n.addr)
			if p.Proto() == t.Proto && (inside && p.Port == t.Port || node && p.NodePort == t.Port && t.Port != 0) {
				port := t.Port
				if err := g.service(ctx, &t, s, p.Name); err != nil {
					return t, err
				}
				t.Addrs, t.Port = []netip.Addr{n.addr}, port
				return t, nil
			}
		}
		if slices.Contains(s.ClusterIPs(), n.addr) {
			t.Service = &s // it has no such port: a finding
		}
	}
	if node := g.in.NodeOf(n.addr); t.Service == nil && node != "" {
		return t, g.hostPort(ctx, node, &t)
	}
	if t.Service == nil && g.in.InPodRange(n.addr) {
		if g.objects.Away() {
			g.stranger(&t, n.addr)
			return t, nil
		}
		t.Missing = fmt.Sprintf("%s is in a node's pod range, and no pod has it", n.addr)
	}
	return t, nil
}

// hostPort finds the pod to which a port of a node leads, if one does.
func (g *gatherer) hostPort(ctx context.Context, node string, t *way.Target) error {
	pods, err := g.objects.PodsOn(ctx, node)
	g.in.Objects.Pods = append(g.in.Objects.Pods, pods...)
	for i, p := range pods {
		if port, ok := p.HostPort(t.Port, t.Proto); ok && !p.Spec.HostNetwork && !p.Ended() {
			t.Pod, t.Inner = &pods[i], port
		}
	}
	return err
}
