// Package monitoring checks what is written about metrics against the metrics
// that there are. Inputs are the programs' registries, and the expressions of
// alerts and of the dashboard; outputs are what is exported, and the mistakes in
// an expression. It refuses to be a parser of PromQL: it knows names, labels
// and brackets, which is what goes stale.
package monitoring

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"poplin.dev/poplin/daemon/ingress"
	"poplin.dev/poplin/pkg/metrics"
)

// Metric is one that a program exports.
type Metric struct {
	Name, Help string
	// Type is counter, gauge or histogram.
	Type   string
	Labels []string
}

// Daemon are all of poplind's own, by name: a registry in which everything has
// been counted once.
func Daemon() ([]Metric, error) {
	m := metrics.New()
	m.Pass("", 0, nil)
	m.Repaired("", "", 1)
	m.Add("", 0)
	m.Addresses("", 0, 0)
	m.Operations(0, 0, 0, 0)
	m.Dialed("", nil)
	m.Requested("", nil)
	m.Heard("")
	m.Services().Starved(0, 0)
	m.Policies().Logged("", "", "", "", 1)
	drops := func() map[string]uint64 { return map[string]uint64{"": 0} }
	m.PolicyDrops(drops)
	m.GuardDrops(drops)
	m.Conntrack(func() (float64, float64, bool) { return 0, 0, false })
	return gather(m.Registry())
}

// Ingress are all of poplin-ingress' own.
func Ingress() ([]Metric, error) { return gather(ingress.Sample()) }

func gather(r *prometheus.Registry) (list []Metric, err error) {
	families, err := r.Gather()
	if err != nil {
		return nil, err
	}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "poplin_") {
			continue
		}
		m := Metric{Name: f.GetName(), Help: f.GetHelp(), Type: strings.ToLower(f.GetType().String())}
		for _, l := range f.GetMetric()[0].GetLabel() {
			m.Labels = append(m.Labels, l.GetName())
		}
		list = append(list, m)
	}
	return list, complete(r, list)
}

// described is how the library writes what a metric is.
var described = regexp.MustCompile(`fqName: "(poplin_\w+)"`)

// complete finds a metric of which the registry has nothing to show.
func complete(r *prometheus.Registry, list []Metric) error {
	all := make(chan *prometheus.Desc)
	go func() {
		r.Describe(all)
		close(all)
	}()
	var errs []error
	for d := range all {
		name := described.FindStringSubmatch(d.String())
		if name != nil && !slices.ContainsFunc(list, func(m Metric) bool { return m.Name == name[1] }) {
			errs = append(errs, fmt.Errorf("%s is registered, but nothing was counted: do so here", name[1]))
		}
	}
	return errors.Join(errs...)
}

var (
	// quoted are strings, which may hold anything.
	quoted = regexp.MustCompile(`"[^"]*"`)
	// selector is a metric of Poplin's with its labels, if any are asked for.
	selector = regexp.MustCompile(`\b(poplin_\w+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`)
	grouping = regexp.MustCompile(`\b(?:by|without|on|ignoring)\s*\(([^)]*)\)`)
	part     = regexp.MustCompile(`_(?:bucket|sum|count)$`)
)

// given are labels that a scrape adds, and a histogram.
var given = []string{"instance", "job", "le", "pod", "node"}

// find is the metric of a name, or of a part of a histogram.
func find(known []Metric, name string) (Metric, bool) {
	for _, n := range []string{name, part.ReplaceAllString(name, "")} {
		if i := slices.IndexFunc(known, func(m Metric) bool { return m.Name == n }); i >= 0 {
			return known[i], true
		}
	}
	return Metric{}, false
}

// mistakes are what an expression says that is not so.
func mistakes(known []Metric, expr string) (list []string) {
	expr = quoted.ReplaceAllString(expr, `""`)
	if strings.Count(expr, "(") != strings.Count(expr, ")") || strings.Count(expr, "{") != strings.Count(expr, "}") || strings.Count(expr, "[") != strings.Count(expr, "]") {
		list = append(list, "brackets do not match in "+expr)
	}
	labels := slices.Clone(given)
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		m, found := find(known, s[1])
		if !found {
			list = append(list, s[1]+" is not exported")
		}
		labels = append(labels, m.Labels...)
		for _, l := range matcher.FindAllStringSubmatch(s[2], -1) {
			if found && !slices.Contains(m.Labels, l[1]) && !slices.Contains(given, l[1]) {
				list = append(list, fmt.Sprintf("%s has no label %s", s[1], l[1]))
			}
		}
	}
	for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(g[1], ",") {
			if label = strings.TrimSpace(label); !slices.Contains(labels, label) {
				list = append(list, "no metric in it has a label "+label)
			}
		}
	}
	return list
}
