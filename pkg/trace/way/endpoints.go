package way

import (
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/object"
)

// ServicePort is the port that the client uses: a Service's, or a node port.
func (t Target) ServicePort() (object.ServicePort, bool) {
	for _, p := range t.Service.Spec.Ports {
		if p.Proto() == t.Proto && (p.Port == t.Port || p.NodePort == t.Port && p.NodePort != 0 && !t.Inside()) {
			return p, true
		}
	}
	return object.ServicePort{}, false
}

// Inside reports whether a Service is asked at addresses for the cluster only, be they
// of one family of its two.
func (t Target) Inside() bool {
	own := t.Service.ClusterIPs()
	return !slices.ContainsFunc(t.Addrs, func(a netip.Addr) bool { return !slices.Contains(own, a) })
}

// ReadyEndpoint is one that takes new connections.
type ReadyEndpoint struct {
	At   netip.AddrPort
	Node string
}

// Ready lists a Service's endpoints of one family: those that are ready, or
// where none is, those that terminate and still serve.
func (in *Input) Ready(s *object.Service, port object.ServicePort, ipv4 bool) []ReadyEndpoint {
	var ready, draining []ReadyEndpoint
	for _, x := range in.slicesOf(s) {
		number, ok := x.Port(port)
		if !ok {
			continue
		}
		for _, e := range x.Endpoints {
			if len(e.Addresses) == 0 {
				continue
			}
			a, err := netip.ParseAddr(e.Addresses[0])
			if err != nil || a.Is4() != ipv4 {
				continue
			}
			r := ReadyEndpoint{netip.AddrPortFrom(a, number), e.Node}
			switch {
			case e.Ready():
				ready = append(ready, r)
			case e.Terminating() && (e.Conditions.Serving == nil || *e.Conditions.Serving):
				draining = append(draining, r)
			}
		}
	}
	if len(ready) == 0 {
		return draining
	}
	return ready
}

func (in *Input) slicesOf(s *object.Service) (list []object.Slice) {
	for _, x := range in.Objects.Slices {
		if x.Namespace == s.Namespace && x.Labels["kubernetes.io/service-name"] == s.Name {
			list = append(list, x)
		}
	}
	return list
}

// Selected are the pods behind a Service that still run.
func (in *Input) Selected(s *object.Service) (list []object.Pod) {
	for _, p := range in.Objects.Pods {
		if s.Selects(p) && !p.Ended() {
			list = append(list, p)
		}
	}
	return list
}

// PolicyNode is the node on which an endpoint has to be, if any.
func (in *Input) PolicyNode(s *object.Service, front netip.Addr) (node string, local bool) {
	inside := slices.Contains(s.ClusterIPs(), front)
	node, _ = in.enters(in.From, front)
	outside := in.From.Pod == nil && in.From.Node == ""
	return node, inside && s.Spec.Internal == "Local" || !inside && outside && s.Spec.External == "Local"
}

// permits leaves out endpoints that a traffic policy does.
func (in *Input) permits(to Target, c Case, e ReadyEndpoint) bool {
	_, local := in.PolicyNode(to.Service, c.Front.Addr())
	return !local || c.Enters == "" || e.Node == c.Enters
}
