package graph

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster/object"
)

// services has each Service with the pods behind it.
func (g *Graph) services(in Input) {
	behind := map[string][]object.Slice{}
	for _, x := range in.Slices {
		name := x.Namespace + "/" + x.Labels["kubernetes.io/service-name"]
		behind[name] = append(behind[name], x)
	}
	pods := holders(in.Pods)
	for _, o := range in.Services {
		s := Service{Thing: thing("service", o.Meta), Type: o.Spec.Type, Addresses: o.ClusterIPs(), Outer: o.Outer(), Ports: []Port{}}
		for _, p := range o.Spec.Ports {
			s.Ports = append(s.Ports, Port{Name: p.Name, Protocol: p.Proto().String(), Port: p.Port, Target: string(p.Target), NodePort: p.NodePort})
		}
		g.endpoints(&s, o, behind[o.String()], pods)
		if o.Spec.Type != "ExternalName" {
			selected := slices.ContainsFunc(in.Pods, func(p object.Pod) bool { return !p.Ended() && o.Selects(p) })
			switch {
			case len(o.Spec.Selector) > 0 && !selected:
				s.problem("its selector has no pod")
			case s.Endpoints == 0:
				s.problem("it has no endpoint")
			case s.Ready == 0:
				s.problem("none of its endpoints is ready")
			}
		}
		g.Services = append(g.Services, s)
	}
	byID(g.Services, func(s Service) string { return s.ID })
}

// endpoints leads to pods. A pod in both families, or with many ports, is one
// endpoint.
func (g *Graph) endpoints(s *Service, o object.Service, list []object.Slice, pods map[netip.Addr][]object.Pod) {
	ready, ports := map[string]bool{}, map[string][]string{}
	for _, x := range list {
		for _, e := range x.Endpoints {
			to := target(o, e, pods)
			if to == "" {
				continue
			}
			ready[to] = ready[to] || e.Ready()
			for _, p := range x.Ports {
				if text := fmt.Sprintf("%d/%s", p.Port, protocol(p.Protocol)); !slices.Contains(ports[to], text) {
					ports[to] = append(ports[to], text)
				}
			}
		}
	}
	for to, ok := range ready {
		s.Endpoints++
		if ok {
			s.Ready++
		}
		if strings.HasPrefix(to, "address/") {
			continue // outside of the picture
		}
		slices.Sort(ports[to])
		g.Edges = append(g.Edges, Edge{From: s.ID, To: to, Label: strings.Join(ports[to], ", "), Ready: ok})
	}
}

func holders(pods []object.Pod) map[netip.Addr][]object.Pod {
	m := map[netip.Addr][]object.Pod{}
	for _, p := range pods {
		if p.Ended() {
			continue
		}
		for _, a := range p.Addresses() {
			m[a] = append(m[a], p)
		}
	}
	return m
}

// target is the pod of an endpoint; many share the address of their node.
func target(o object.Service, e object.Endpoint, pods map[netip.Addr][]object.Pod) string {
	for _, text := range e.Addresses {
		a, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		for _, p := range pods[a] {
			if e.Target != nil && e.Target.Kind == "Pod" && e.Target.Name == p.Name && p.Namespace == o.Namespace || o.Selects(p) || !p.Spec.HostNetwork {
				return "pod/" + p.String()
			}
		}
		return "address/" + text
	}
	return ""
}

// ingresses has each Ingress with its Services.
func (g *Graph) ingresses(in Input) {
	for _, o := range in.Ingresses {
		i := Ingress{Thing: thing("ingress", o.Meta), Class: o.Spec.Class, URLs: []string{}}
		for _, a := range o.Status.LoadBalancer.Ingress {
			i.Addresses = append(i.Addresses, a.IP+a.Hostname)
		}
		leads := map[string][]string{}
		lead := func(b object.IngressBackend, label string) {
			if b.Service == nil {
				i.problem("%s leads to no Service", label)
				return
			}
			to := "service/" + o.Namespace + "/" + b.Service.Name
			at := slices.IndexFunc(g.Services, func(s Service) bool { return s.ID == to })
			switch {
			case at < 0:
				i.problem("%s leads to Service %s, which does not exist", label, b.Service.Name)
				return
			case !g.Services[at].has(b.Port()):
				i.problem("%s leads to port %s, which Service %s does not have", label, b.Port(), b.Service.Name)
			}
			if !slices.Contains(leads[to], label) {
				leads[to] = append(leads[to], label)
			}
		}
		for _, r := range o.Spec.Rules {
			scheme := "http://"
			for _, t := range o.Spec.TLS {
				if slices.Contains(t.Hosts, r.Host) {
					scheme = "https://"
				}
			}
			for _, p := range r.HTTP.Paths {
				lead(p.Backend, r.Host+p.Path)
				if r.Host != "" && !strings.HasPrefix(r.Host, "*") {
					i.URLs = append(i.URLs, scheme+r.Host+p.Path)
				}
			}
		}
		if o.Spec.Default != nil {
			lead(*o.Spec.Default, "everything else")
		}
		for to, labels := range leads {
			g.Edges = append(g.Edges, Edge{From: i.ID, To: to, Label: strings.Join(labels, ", "), Ready: true})
		}
		g.Ingresses = append(g.Ingresses, i)
	}
	byID(g.Ingresses, func(i Ingress) string { return i.ID })
}

func (s Service) has(port string) bool {
	return slices.ContainsFunc(s.Ports, func(p Port) bool { return p.Name == port || fmt.Sprint(p.Port) == port })
}
