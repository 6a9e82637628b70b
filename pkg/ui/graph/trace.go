package graph

import (
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/trace/way"
)

// Traced is a report, with the thing of the graph at which each hop is.
type Traced struct {
	way.Report
	Hops     []Hop     `json:"hops"`
	Sections []Section `json:"sections"`
}

// Hop is one of a report's.
type Hop struct {
	way.Hop
	// At is the ID of a thing; empty where it is none of the picture's.
	At string `json:"at,omitempty"`
}

// Section is one of a report's, with the worst of its hops; none is empty.
type Section struct {
	way.Section
	Status way.Status `json:"status,omitempty"`
}

// Place finds where in the picture the hops are.
func (g Graph) Place(r way.Report) Traced {
	t := Traced{Report: r, Hops: []Hop{}, Sections: []Section{}}
	for _, h := range r.Hops {
		t.Hops = append(t.Hops, Hop{h, g.at(h, r.Sections)})
	}
	for _, s := range r.Sections {
		t.Sections = append(t.Sections, Section{s, g.worst(s, t)})
	}
	return t
}

// worst is the status of a section: what is wrong at its end, on the node
// there, and between that one and the node where the request begins.
func (g Graph) worst(s way.Section, t Traced) (worst way.Status) {
	first := t.Report.Sections[0].From
	begins, ends := g.nodeOf(first), g.nodeOf(s.To)
	order := []way.Status{"", way.OK, way.Unknown, way.Suspect, way.Broken}
	for _, h := range t.Hops {
		_, other, _ := strings.Cut(h.About, "node ") // such as "way to node n2"
		remote := other != "" && other != h.Node
		concerns := h.At == s.To
		if s.From == first { // the request leaves
			concerns = concerns || h.At == first || h.At == "node/"+begins && !remote
		}
		if begins != ends && ends != "" { // it arrives from elsewhere
			concerns = concerns || h.At == "node/"+ends || h.At == "node/"+begins && other == ends
		}
		if concerns && slices.Index(order, h.Status) > slices.Index(order, worst) {
			worst = h.Status
		}
	}
	return worst
}

// nodeOf is the name of the node that a thing is, or on which it is.
func (g Graph) nodeOf(id string) string {
	if name, ok := strings.CutPrefix(id, "node/"); ok {
		return name
	}
	if i := slices.IndexFunc(g.Pods, func(p Pod) bool { return p.ID == id }); i >= 0 {
		return g.Pods[i].Node
	}
	return ""
}

// at reads what a hop is about: a pod, a Service, an address, and else the
// node where it is.
func (g Graph) at(h way.Hop, sections []way.Section) string {
	kind, name, _ := strings.Cut(h.About, " ")
	name, _, _ = strings.Cut(name, ",")
	switch kind {
	case "pod":
		return "pod/" + name
	case "Service":
		return "service/" + name
	}
	switch h.Hop {
	case way.Socket:
		text, _, _ := strings.Cut(h.About, "/")
		if a, err := netip.ParseAddrPort(text); err == nil {
			if p := slices.IndexFunc(g.Pods, func(p Pod) bool { return !p.HostNetwork && slices.Contains(p.Addresses, a.Addr()) }); p >= 0 {
				return g.Pods[p].ID
			}
		}
	case way.IngressClass, way.IngressRoute, way.IngressTLS:
		return g.ingress(h, sections)
	case way.DNS, way.Entry, way.IngressProgram:
		if len(sections) > 0 {
			return sections[0].To
		}
	}
	if h.Node != "" {
		return "node/" + h.Node
	}
	return ""
}

// ingress is the one that takes the request, or the one with its host.
func (g Graph) ingress(h way.Hop, sections []way.Section) string {
	for _, s := range sections {
		if strings.HasPrefix(s.To, "ingress/") {
			return s.To
		}
	}
	for _, i := range g.Ingresses {
		for _, u := range i.URLs {
			_, rest, _ := strings.Cut(u, "://")
			if host, _, _ := strings.Cut(rest, "/"); strings.HasPrefix(h.About+"/", host+"/") {
				return i.ID
			}
		}
	}
	return ""
}
