// Package monitoring checks what is written about metrics against the metrics
// that there are. Inputs are the daemon's registry, and the expressions of
// alerts and of the dashboard; outputs are the mistakes in an expression, and a
// table for people. It refuses to be a parser of PromQL: it knows names, labels
// and brackets, which is what goes stale.
package monitoring

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"poplin.dev/poplin/pkg/metrics"
)

// metric is one that the daemon exports.
type metric struct {
	help   string
	labels []string
}

// description is how the library writes one.
var description = regexp.MustCompile(`fqName: "(\w+)", help: "(.*?)"(?:, unit: ".*?")?, constLabels: \{[^}]*\}, variableLabels: \{([^}]*)\}`)

// exported are all of Poplin's own, by name.
func exported() map[string]metric {
	m := metrics.New()
	m.Services()
	m.Policies()
	m.PolicyDrops(func() map[string]uint64 { return nil })
	m.GuardDrops(func() map[string]uint64 { return nil })
	m.Conntrack(func() (float64, float64, bool) { return 0, 0, false })
	all := make(chan *prometheus.Desc)
	go func() {
		m.Describe(all)
		close(all)
	}()
	list := map[string]metric{}
	for d := range all {
		f := description.FindStringSubmatch(d.String())
		if f == nil || !strings.HasPrefix(f[1], "poplin_") {
			continue
		}
		one := metric{help: f[2]}
		for label := range strings.SplitSeq(f[3], ",") {
			if label = strings.TrimSpace(label); label != "" {
				one.labels = append(one.labels, label)
			}
		}
		list[f[1]] = one
	}
	return list
}

// table is the metrics for people.
func table(list map[string]metric) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(list)) {
		m := list[name]
		labels := ""
		if len(m.labels) > 0 {
			labels = "`" + strings.Join(m.labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, labels, m.help)
	}
	return b.String()
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

// mistakes are what an expression says that is not so.
func mistakes(known map[string]metric, expr string) (list []string) {
	expr = quoted.ReplaceAllString(expr, `""`)
	if strings.Count(expr, "(") != strings.Count(expr, ")") || strings.Count(expr, "{") != strings.Count(expr, "}") || strings.Count(expr, "[") != strings.Count(expr, "]") {
		list = append(list, "brackets do not match in "+expr)
	}
	labels := slices.Clone(given)
	for _, s := range selector.FindAllStringSubmatch(expr, -1) {
		m, found := known[s[1]]
		if !found {
			m, found = known[part.ReplaceAllString(s[1], "")]
		}
		if !found {
			list = append(list, s[1]+" is not exported")
		}
		labels = append(labels, m.labels...)
		for _, l := range matcher.FindAllStringSubmatch(s[2], -1) {
			if found && !slices.Contains(m.labels, l[1]) && !slices.Contains(given, l[1]) {
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
