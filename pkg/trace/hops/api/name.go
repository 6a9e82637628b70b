// Package api looks at what the API's objects say of a request: names,
// addresses for clients outside, Ingresses, Services, endpoints. Input is what is
// known; outputs are hops. It refuses to look at kernels, except for who listens
// at a target port.
package api

import (
	"fmt"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/trace/way"
)

// DNS: a client that uses a name needs somebody who knows it.
func DNS(in *way.Input) []way.Hop {
	if !in.To.ByName || in.From.Pod == nil && in.To.Unresolved == "" {
		return nil // a client outside asks somebody else
	}
	h := &way.Hop{Hop: way.DNS, About: "name " + in.To.Name}
	if in.Objects.DNS == nil {
		h.Unknown("the cluster has no Service with the label k8s-app=kube-dns in kube-system")
		return []way.Hop{*h}
	}
	ready := 0
	for _, s := range in.Objects.DNSSlices {
		for _, e := range s.Endpoints {
			if e.Ready() {
				ready++
			}
		}
	}
	h.Saw("Service %s at %s has %d ready endpoints", in.Objects.DNS, in.Objects.DNS.Spec.ClusterIPs, ready)
	if !slices.ContainsFunc(in.Objects.DNS.Spec.Ports, func(p object.ServicePort) bool { return p.Port == 53 && p.Proto() == service.UDP }) {
		h.Broken("kubectl -n kube-system edit service "+in.Objects.DNS.Name, "Service %s has no UDP port 53, where resolvers ask", in.Objects.DNS)
	}
	if ready == 0 {
		h.Broken("kubectl -n kube-system get pods -l k8s-app=kube-dns", "no name server of the cluster is ready: names cannot be resolved")
	}
	if why := kept(in); why != "" {
		h.Broken(fmt.Sprintf("kubectl -n %s describe networkpolicies # and permit port 53", in.From.Pod.Namespace), "the client may not ask the name server: %s", why)
	}
	if why := in.To.Unresolved; why != "" {
		h.Broken("kubectl get services -A", "%s", why)
	}
	if s := in.To.Service; s != nil && len(s.Spec.Selector) > 0 && slices.Contains(s.Spec.ClusterIPs, "None") {
		h.Saw("Service %s is headless: its name stands for the ready pods' addresses", s)
	}
	return []way.Hop{*h}
}

// kept names the policies that keep the client from every name server.
func kept(in *way.Input) (why string) {
	explain := in.Desired[in.From.Node].Explain
	if explain == nil || in.From.Pod == nil || in.From.Pod.Spec.HostNetwork {
		return ""
	}
	for _, to := range nearby(in) {
		if from, speaks := in.From.Address(to.Addr()); speaks && explain(true, from, to, service.UDP) == "" {
			return ""
		}
	}
	for _, s := range in.Objects.DNSSlices {
		for _, p := range s.Ports {
			for _, e := range s.Endpoints {
				if p.Protocol != "UDP" || !e.Ready() || len(e.Addresses) == 0 {
					continue
				}
				to, err := netip.ParseAddr(e.Addresses[0])
				from, speaks := in.From.Address(to)
				if err != nil || !speaks {
					continue
				}
				if why = explain(true, from, netip.AddrPortFrom(to, p.Port), service.UDP); why == "" {
					return ""
				}
			}
		}
	}
	return why
}

// nearby is where a cache of names answers on the client's node, as NodeLocal
// DNSCache does: at a link-local address, or at that of the name server itself.
func nearby(in *way.Input) (list []netip.AddrPort) {
	f, known := in.Facts[in.From.Node]
	if !known || f.Network == nil {
		return nil
	}
	for _, s := range f.Network.Sockets {
		a := s.At.Addr()
		if s.Proto == service.UDP && s.At.Port() == 53 && (a.Is4() && a.IsLinkLocalUnicast() || slices.Contains(in.Objects.DNS.ClusterIPs(), a)) {
			list = append(list, s.At)
		}
	}
	return list
}

// Entry: what a client outside sends to has to be an address for outside.
func Entry(in *way.Input) []way.Hop {
	h := &way.Hop{Hop: way.Entry, About: in.To.Name}
	if in.To.Missing != "" {
		h.Broken("kubectl get services,pods -A -o wide", "%s", in.To.Missing)
		return []way.Hop{*h}
	}
	if in.From.Pod != nil || in.From.Node != "" {
		return nil
	}
	s := in.To.Service
	switch {
	case s == nil && in.To.Pod != nil && !in.To.Pod.Spec.HostNetwork:
		if !slices.ContainsFunc(in.To.Addrs, func(a netip.Addr) bool { return in.NodeOf(a) != "" }) {
			h.Suspect("kubectl expose pod "+in.To.Pod.Name+" -n "+in.To.Pod.Namespace+" --type NodePort",
				"%s are pods' addresses: clients outside reach them only if the network routes the pod ranges", in.To.Addrs)
		}
	case s != nil && in.To.Inside():
		h.Broken(fmt.Sprintf("kubectl -n %s patch service %s -p '{\"spec\":{\"type\":\"NodePort\"}}'", s.Namespace, s.Name),
			"Service %s has no address for clients outside: its type is %s", s, s.Spec.Type)
		if s.Spec.Type == "LoadBalancer" {
			h.Cause, h.Cure = fmt.Sprintf("no load balancer has given Service %s an address", s), "kubectl -n "+s.Namespace+" describe service "+s.Name
		}
	case s == nil && in.To.Pod == nil && !taken(in):
		h.Broken("kubectl get services -A", "no Service has node port %d/%s, no pod has that host port, and no process listens there", in.To.Port, in.To.Proto)
	default:
		h.Saw("clients outside reach %s", in.To.Addrs)
	}
	return []way.Hop{*h}
}

// taken reports whether somebody receives at a port of a node, as far as that
// is known.
func taken(in *way.Input) bool {
	for _, a := range in.To.Addrs {
		f, known := in.Facts[in.NodeOf(a)]
		if !known || f.Network == nil {
			return true
		}
		for _, s := range f.Network.Sockets {
			if s.Proto == in.To.Proto && s.At.Port() == in.To.Port {
				return true
			}
		}
	}
	return len(in.To.Addrs) == 0
}
