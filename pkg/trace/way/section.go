package way

import (
	"slices"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/object"
)

// Section is a part of the way, between two things of the cluster. Each is
// external, address/ADDRESS, node/NAME, or pod, service or ingress with
// /NAMESPACE/NAME.
type Section struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Sections are the parts of all ways that a request may take, as far as they
// are known: where a Service has no endpoint, they end there.
func Sections(in *Input) (list []Section) {
	chain := func(things ...string) {
		things = slices.DeleteFunc(things, func(s string) bool { return s == "" })
		for i := 1; i < len(things); i++ {
			if s := (Section{things[i-1], things[i]}); !slices.Contains(list, s) {
				list = append(list, s)
			}
		}
	}
	service := func(t *Target) string {
		if t == nil || t.Service == nil {
			return ""
		}
		return "service/" + t.Service.String()
	}
	pod := func(p *object.Pod) string {
		if p == nil {
			return ""
		}
		return "pod/" + p.String()
	}
	if service(&in.To) != "" {
		chain(in.From.thing(), service(&in.To))
	} else {
		chain(in.From.thing(), pod(in.To.Pod))
	}
	route := ""
	if in.Web != nil {
		if r := in.Answer().Route; r != nil && r.Ingress != (cluster.ObjectName{}) {
			route = "ingress/" + r.Ingress.String()
		}
	}
	for _, c := range Cases(in) {
		end := End{Pod: c.Pod, Node: c.Node}
		if c.Pod == nil && c.Node == "" {
			end.Addrs = append(end.Addrs, c.Dst.Addr())
		}
		switch {
		case in.replica(c.Src.Pod):
			chain(c.Src.thing(), route, service(in.Behind), end.thing())
		case c.Served():
			chain(in.From.thing(), service(&in.To), end.thing())
		default:
			chain(in.From.thing(), end.thing())
		}
		if in.Web != nil && in.replica(c.Pod) {
			chain(end.thing(), route, service(in.Behind))
		}
	}
	return list
}

// replica reports whether a pod is one of the Ingress controller's.
func (in *Input) replica(p *object.Pod) bool {
	return p != nil && in.Web != nil && slices.ContainsFunc(in.Web.Replicas, func(r object.Pod) bool { return r.Key() == p.Key() })
}

func (e End) thing() string {
	switch {
	case e.Pod != nil:
		return "pod/" + e.Pod.String()
	case e.Node != "":
		return "node/" + e.Node
	case len(e.Addrs) > 0:
		return "address/" + e.Addrs[0].String()
	}
	return "external"
}
