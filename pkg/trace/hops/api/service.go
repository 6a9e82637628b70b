package api

import (
	"fmt"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/trace/way"
)

// Service: the Service has the port, selects pods, and its targetPort is one
// where they listen.
func Service(in *way.Input, to way.Target) []way.Hop {
	s := to.Service
	if s == nil {
		return nobodys(in, to)
	}
	h := &way.Hop{Hop: way.Service, About: "Service " + s.String()}
	edit := fmt.Sprintf("kubectl -n %s edit service %s", s.Namespace, s.Name)
	port, ok := to.ServicePort()
	if !ok {
		h.Broken(edit, "it has no port %d/%s, only %s", to.Port, to.Proto, portsOf(s))
		return []way.Hop{*h}
	}
	if in.Memory != nil {
		h.Unknown("it has port %d/%s; its selector and targetPort are not known: the API server is away", port.Port, port.Proto())
		return []way.Hop{*h}
	}
	h.Saw("port %d/%s leads to targetPort %s", port.Port, port.Proto(), port.Target)
	if s.Spec.Type == "ExternalName" {
		h.Unknown("it stands for %s, which is outside of the cluster", s.Spec.ExternalName)
		return []way.Hop{*h}
	}
	selected := in.Selected(s)
	if len(s.Spec.Selector) > 0 {
		h.Saw("selector %s has %d pods", selectorText(s.Spec.Selector), len(selected))
		if len(selected) == 0 {
			h.Broken(edit, "its selector %s has no pod in namespace %s", selectorText(s.Spec.Selector), s.Namespace)
		}
	}
	targetPort(in, h, port, selected, edit)
	return []way.Hop{*h}
}

// nobodys: an address of the Services' ranges is a Service's.
func nobodys(in *way.Input, to way.Target) (hops []way.Hop) {
	for _, a := range to.Addrs {
		for r := range in.Desired[in.From.Node].Services.Ranges {
			if r.Contains(a) {
				h := way.Hop{Hop: way.Service, About: a.String()}
				h.Broken("kubectl get services -A -o wide", "no Service has %s, which is in their range %s", a, r)
				hops = append(hops, h)
			}
		}
	}
	return hops
}

// targetPort looks for a pod where the target port is none.
func targetPort(in *way.Input, h *way.Hop, port object.ServicePort, selected []object.Pod, edit string) {
	for _, p := range selected {
		number, isNumber := port.Target.Number()
		if !isNumber && port.Target != "" {
			var ok bool
			if number, ok = p.Port(string(port.Target), port.Proto()); !ok {
				h.Broken(edit, "targetPort %s: no container of pod %s has a %s port of that name", port.Target, p, port.Proto())
				return
			}
		}
		if number == 0 {
			number = port.Port
		}
		declared := p.Declared(port.Proto())
		if len(declared) == 0 || slices.Contains(declared, number) {
			continue
		}
		open, looked := listening(in, p, port.Proto())
		if !looked {
			h.Suspect(edit, "targetPort %d: pod %s names %v, and nobody could look whether it listens there", number, p, declared)
			continue
		}
		if slices.Contains(open, number) {
			continue
		}
		for _, d := range declared {
			if slices.Contains(open, d) {
				h.Broken(edit, "targetPort %d: pod %s does not listen there, but at %d, which its container names", number, p, d)
				return
			}
		}
	}
}

// listening are the ports at which a pod receives from others.
func listening(in *way.Input, p object.Pod, proto service.Protocol) (ports []uint16, looked bool) {
	inside := in.Inside(&p)
	if inside == nil {
		return nil, false
	}
	for _, s := range inside.Sockets {
		if s.Proto == proto && !s.At.Addr().IsLoopback() {
			ports = append(ports, s.At.Port())
		}
	}
	return ports, true
}

func selectorText(m map[string]string) string {
	var list []string
	for k, v := range m {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}

func portsOf(s *object.Service) string {
	var list []string
	for _, p := range s.Spec.Ports {
		list = append(list, fmt.Sprintf("%d/%s", p.Port, p.Proto()))
	}
	return strings.Join(list, ", ")
}
