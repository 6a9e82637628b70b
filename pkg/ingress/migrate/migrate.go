// Package migrate says what becomes of Ingresses that ingress-nginx serves.
// Inputs are the Ingresses and what a compilation found about them; output is
// a report for each: which annotations work, which do not, and which of
// ingress-nginx's silent behaviours it may rest on. It refuses to guess what
// configuration snippets mean.
package migrate

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/ingress"
	"poplin.dev/poplin/pkg/ingress/annotation"
)

// Report is what becomes of one Ingress.
type Report struct {
	Ingress cluster.ObjectName `json:"ingress"`
	// Works and NoEffect are keys of annotations; Ignored are those that are
	// not followed, Refused those that keep the Ingress closed.
	Works    []string `json:"works"`
	NoEffect []string `json:"noEffect"`
	Ignored  []string `json:"ignored"`
	Refused  []string `json:"refused"`
	// Surprises are where the Ingress may rest on what its text does not tell.
	Surprises []Surprise `json:"surprises"`
	// Findings are what its owner would be told here.
	Findings []ingress.Finding `json:"findings"`
}

// Behaviour is one of five things that ingress-nginx does and an Ingress does
// not say.
type Behaviour string

// The five behaviours.
const (
	IgnoresCase Behaviour = "regular expressions ignore case and match beginnings"
	HostWide    Behaviour = "one Ingress with regular expressions turns all paths of its host into some"
	RewriteIsRE Behaviour = "rewrite-target turns paths into regular expressions"
	AddsSlash   Behaviour = "a request without the slash at the end is redirected"
	Normalises  Behaviour = "paths are compared decoded and forwarded as they came"
)

// Surprise is a behaviour that an Ingress may rest on.
type Surprise struct {
	Behaviour Behaviour `json:"behaviour"`
	// Text says where, and what happens here.
	Text string `json:"text"`
}

// Ready reports whether the Ingress can move as it is.
func (r Report) Ready() bool {
	return len(r.Ignored)+len(r.Refused)+len(r.Surprises) == 0 &&
		!slices.ContainsFunc(r.Findings, func(f ingress.Finding) bool { return f.Reason.Warns() })
}

// Reports looks at every Ingress that a compilation of all of them served,
// with the controller they come from among those that are served.
func Reports(all []*cluster.Ingress, result ingress.Result) []Report {
	var served []source
	for _, i := range all {
		if result.Findings[i.ObjectName] != nil {
			s, _ := annotation.Read(i.Annotations)
			served = append(served, source{i, s})
		}
	}
	slices.SortFunc(served, func(a, b source) int { return a.ObjectName.Compare(b.ObjectName) })
	list := make([]Report, len(served))
	for n, s := range served {
		r := &list[n]
		*r = Report{Ingress: s.ObjectName, Findings: result.Findings[s.ObjectName], Surprises: surprises(s, served)}
		for _, key := range slices.Sorted(maps.Keys(s.Annotations)) {
			r.sort(key, s.Annotations[key])
		}
	}
	return list
}

// source is an Ingress with its annotations read.
type source struct {
	*cluster.Ingress
	settings annotation.Settings
}

// sort puts an annotation under what becomes of it. One that is known but
// cannot be read is ignored or refused like one that is not.
func (r *Report) sort(key, value string) {
	if !strings.HasPrefix(key, annotation.Nginx) {
		return
	}
	_, problems := annotation.Read(map[string]string{key: value})
	own := slices.IndexFunc(problems, func(p annotation.Problem) bool { return p.Key == key })
	switch known := annotation.Classify(key); {
	case own >= 0 && problems[own].Closed:
		r.Refused = append(r.Refused, key)
	case own >= 0:
		r.Ignored = append(r.Ignored, key)
	case known == annotation.NoEffect:
		r.NoEffect = append(r.NoEffect, key)
	default:
		r.Works = append(r.Works, key)
	}
}

// surprises looks for the five behaviours.
func surprises(s source, all []source) []Surprise {
	var list []Surprise
	say := func(b Behaviour, format string, args ...any) {
		list = append(list, Surprise{b, fmt.Sprintf(format, args...)})
	}
	if s.settings.RegexpAll && s.settings.Rewrite != "" && s.Annotations[annotation.Nginx+"use-regex"] == "" {
		say(RewriteIsRE, "all paths; the same happens here")
	}
	for _, r := range s.Rules {
		neighbour := slices.ContainsFunc(all, func(o source) bool { return o.Ingress != s.Ingress && o.settings.RegexpAll && o.has(r.Host) })
		for _, p := range r.Paths {
			switch {
			case s.settings.RegexpAll && p.Type == cluster.PathExact:
				say(HostWide, "path %s (Exact); here it is exact", p.Path)
			case s.settings.RegexpAll:
				say(IgnoresCase, "path %s; the same happens here", p.Path)
			case neighbour:
				say(HostWide, "path %s (%s) of host %s; here it is none", p.Path, p.Type, cmp.Or(r.Host, "(any)"))
			}
			if strings.HasSuffix(p.Path, "/") && p.Path != "/" && p.Type != cluster.PathOther {
				say(AddsSlash, "path %s; here a request without it %s", p.Path, withoutSlash(p.Type))
			}
			if strings.Contains(p.Path, "%") {
				say(Normalises, "path %s has an escape; here one normal form is compared and forwarded", p.Path)
			}
		}
	}
	return list
}

func (s source) has(host string) bool {
	return slices.ContainsFunc(s.Rules, func(r cluster.IngressRule) bool { return r.Host == host })
}

func withoutSlash(t cluster.PathType) string {
	if t == cluster.PathExact {
		return "is another path"
	}
	return "is served as it came"
}
