package way

import (
	"net/netip"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/trace"
)

// Visit is the request, as the Ingress controller sees it.
func (in *Input) Visit() facts.Visit {
	v := facts.Visit{TLS: in.Web.TLS, Host: in.Web.Host, Path: in.Web.Path, Client: netip.AddrFrom4([4]byte{198, 51, 100, 1})}
	if len(in.From.Addrs) > 0 {
		v.Client = in.From.Addrs[0]
	}
	return v
}

// Answer is its fate there.
func (in *Input) Answer() trace.Answer {
	v := in.Visit()
	return trace.HTTP(in.Web.Program, trace.Request{TLS: v.TLS, Host: v.Host, Path: v.Path, Client: v.Client})
}

// webCases are the way to each replica of the controller, and from there to
// the endpoints of the route.
func (in *Input) webCases() (list []Case) {
	list = in.cases(in.From, in.To)
	answer := in.Answer()
	for _, p := range in.Web.Replicas {
		if !p.Ready() {
			continue
		}
		from := End{Pod: &p, Node: p.Spec.NodeName, Addrs: p.Addresses()}
		for _, e := range answer.Endpoints {
			if len(list) >= 2*mostEndpoints {
				return list
			}
			list = append(list, in.cases(from, Target{Name: e.String(), Addrs: []netip.Addr{e.Addr()}, Port: e.Port(), Proto: service.TCP})...)
		}
	}
	return list
}
