package api

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/trace/way"
)

// Endpoints: somebody is ready behind the Service.
func Endpoints(in *way.Input, to way.Target) []way.Hop {
	s := to.Service
	if s == nil || s.Spec.Type == "ExternalName" {
		return nil
	}
	port, ok := to.ServicePort()
	if !ok {
		return nil
	}
	var hops []way.Hop
	for _, front := range to.Addrs {
		if _, speaks := in.From.Address(front); !speaks {
			continue
		}
		h := way.Hop{Hop: way.Endpoints, About: fmt.Sprintf("Service %s, %s", s, familyName(front))}
		ready := in.Ready(s, port, front.Is4())
		h.Saw("%d endpoints are ready", len(ready))
		if len(ready) == 0 {
			h.Broken(fmt.Sprintf("kubectl -n %s get endpointslices,pods -l kubernetes.io/service-name=%s", s.Namespace, s.Name), "no endpoint is ready")
			whyNoneReady(in, &h, s)
		} else {
			nearEnough(in, &h, s, front, ready)
			alive(in, &h, s, ready)
		}
		hops = append(hops, h)
	}
	return hops
}

// whyNoneReady names a pod, and what it says of itself.
func whyNoneReady(in *way.Input, h *way.Hop, s *object.Service) {
	if selected := in.Selected(s); len(selected) > 0 {
		p := selected[0]
		why := "its phase is " + p.Status.Phase
		for _, c := range p.Status.Conditions {
			if c.Type == "Ready" && c.Status != "True" {
				why = strings.Trim(c.Reason+": "+c.Message, ": ")
			}
		}
		if p.Deleted != nil {
			why = "it is being deleted"
		}
		h.Cause = fmt.Sprintf("no endpoint is ready: pod %s: %s", p, why)
		h.Cure = fmt.Sprintf("kubectl -n %s describe pod %s", p.Namespace, p.Name)
	}
}

// nearEnough holds traffic policy Local against the node where it counts.
func nearEnough(in *way.Input, h *way.Hop, s *object.Service, front netip.Addr, ready []way.ReadyEndpoint) {
	node, local := in.PolicyNode(s, front)
	if !local || node == "" {
		return
	}
	if !slices.ContainsFunc(ready, func(e way.ReadyEndpoint) bool { return e.Node == node }) {
		h.Broken(fmt.Sprintf("kubectl -n %s edit service %s", s.Namespace, s.Name),
			"its traffic policy is Local, and none of its %d ready endpoints is on node %s", len(ready), node)
	}
}

// alive: what is of a pod range is a pod's.
func alive(in *way.Input, h *way.Hop, s *object.Service, ready []way.ReadyEndpoint) {
	for _, e := range ready {
		if !in.InPodRange(e.At.Addr()) || in.Objects.PodAt(e.At.Addr()) != nil {
			continue
		}
		if in.Memory != nil {
			h.Unknown("which pod has %s, one of its endpoints, is not known: the API server is away", e.At)
		} else {
			h.Broken(fmt.Sprintf("kubectl -n %s get endpointslices -l kubernetes.io/service-name=%s", s.Namespace, s.Name), "no pod has %s, which is one of its endpoints", e.At)
		}
	}
}

func familyName(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}
