// Package ingress measures what a request costs in poplin-ingress, nginx and
// HAProxy as plain reverse proxies: the same two back ends, connections kept
// to them, one core for each proxy and the other for its client and the back
// ends. Inputs are options, Debian's packages nginx-light, haproxy and
// nghttp2-client, and the configurations beside this file; outputs are figures
// and verdicts. It refuses to measure a proxy that hostile input gets past,
// and to compare runs: the proxies take turns. Processor time for a request is
// the figure to look at; rates and times move with whatever else the machine
// does.
package ingress

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"poplin.dev/poplin/test/bench/report"
)

// Options say how much is measured.
type Options struct {
	// Quick is one round of few requests.
	Quick bool
	// Load is a part of the names of the loads to measure; "" is all.
	Load string
}

// rounds is how often all take their turns as fast as they can, and at half load.
func (o Options) rounds() (full, half int) {
	if o.Quick {
		return 1, 3
	}
	return 3, 9
}

// requests is how many of a load there are in a round.
func (o Options) requests(l load) int {
	if o.Quick {
		return l.n / 4
	}
	return l.n
}

// half is how long half load lasts in a round. Many short rounds are worth more
// than a few long ones: whatever else the machine does for a moment spoils the
// p99 of a round, but not the median of all.
func (o Options) half() time.Duration {
	if o.Quick {
		return 500 * time.Millisecond
	}
	return 1200 * time.Millisecond
}

// load is one kind of request.
type load struct {
	name   string
	scheme string
	path   string
	args   []string // of h2load
	n      int
	cpu    report.Figure // at most so much of nginx's
	p99    report.Figure // at half load
}

// HTTP/1.1 is the proxy's own engine, HTTP/2 is net/http's.
var loads = []load{
	{"HTTP/1.1, 128 B", "http", "/small", []string{"--h1", "-c64"}, 60000, 1.2, 1.5},
	{"HTTP/1.1, 100 kB", "http", "/large", []string{"--h1", "-c64"}, 15000, 1.2, 1.5},
	{"HTTPS, 128 B", "https", "/small", []string{"--h1", "-c64"}, 60000, 1.2, 1.5},
	{"HTTPS, 100 kB", "https", "/large", []string{"--h1", "-c64"}, 10000, 1.2, 1.5},
	{"HTTP/2, 128 B", "https", "/small", []string{"-c8", "-m16"}, 60000, 3, 3},
	{"HTTP/2, 100 kB", "https", "/large", []string{"-c8", "-m16"}, 10000, 3, 3},
}

// The proxies, in the order of their turns.
const (
	nginx   = "nginx"
	haproxy = "HAProxy"
	poplin  = "poplin-ingress"
)

var proxies = []string{nginx, haproxy, poplin}

// result is what one load has cost in each proxy: the medians of the rounds.
type result struct {
	load
	at        report.Figure // requests per second of the half load
	cpu, rate map[string]report.Figure
	p50, p99  map[string]report.Figure
}

// Measure is the whole of it.
func Measure(ctx context.Context, o Options) (report.Area, error) {
	a := report.Area{Name: "Ingress", Options: "against nginx " + version("nginx-light") + " and HAProxy " + version("haproxy") + ", a core each, two back ends"}
	chosen := slices.DeleteFunc(slices.Clone(loads), func(l load) bool { return !strings.Contains(l.name, o.Load) })
	if len(chosen) == 0 {
		return a, fmt.Errorf("no load's name contains %q: %s", o.Load, names())
	}
	l, err := newLab()
	if err != nil {
		return a, err
	}
	defer l.close()
	rows, wrong := l.attack()
	a.Verdicts = append(a.Verdicts, report.AtMost(fmt.Sprintf("of %d hostile requests, read wrongly by what is measured", rows), report.Figure(len(wrong)), 0))
	if len(wrong) > 0 {
		return a, fmt.Errorf("hostile input: %s", strings.Join(wrong, "; "))
	}
	var results []result
	for _, kind := range chosen {
		r, err := l.compare(ctx, kind, o)
		if err != nil {
			return a, fmt.Errorf("%s: %w", kind.name, err)
		}
		results = append(results, r)
	}
	a.Tables = tables(results)
	for _, r := range results {
		a.Verdicts = append(a.Verdicts,
			report.AtMost(r.name+": CPU of nginx's", r.cpu[poplin]/r.cpu[nginx], r.load.cpu),
			report.AtMost(r.name+": p99 at half load, of nginx's", r.p99[poplin]/r.p99[nginx], r.load.p99))
	}
	return a, nil
}

// names is those of all loads.
func names() string {
	var list []string
	for _, l := range loads {
		list = append(list, strconv.Quote(l.name))
	}
	return strings.Join(list, ", ")
}

func version(pkg string) string {
	out, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", pkg).Output()
	if err != nil {
		return "of unknown version"
	}
	return string(out)
}

// compare lets the proxies take turns: first as fast as they can, then all at
// one rate, half of what the slower one of nginx and poplin-ingress can at
// most. The rate is the same for all because clients' is: they do not ask less
// of a slow proxy. At half of its own most each, a slower one would be measured
// with less to do, and look better for it.
func (l *lab) compare(ctx context.Context, kind load, o Options) (result, error) {
	r := result{load: kind, cpu: map[string]report.Figure{}, rate: map[string]report.Figure{}, p50: map[string]report.Figure{}, p99: map[string]report.Figure{}}
	all := map[string][]sample{}
	turns := func(rounds int, measure func(name string) (sample, error)) error {
		clear(all)
		for range rounds {
			for _, name := range proxies {
				if err := ctx.Err(); err != nil {
					return err
				}
				s, err := measure(name)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				all[name] = append(all[name], s)
			}
		}
		return nil
	}
	full, half := o.rounds()
	if err := turns(full, func(name string) (sample, error) { return l.full(name, kind, o.requests(kind)) }); err != nil {
		return r, err
	}
	for _, name := range proxies {
		r.cpu[name] = median(all[name], func(s sample) float64 { return s.cpu })
		r.rate[name] = median(all[name], func(s sample) float64 { return s.rate })
	}
	rate := int(min(r.rate[nginx], r.rate[poplin])) / 2
	r.at = report.Figure(rate)
	if err := turns(half, func(name string) (sample, error) { return l.half(name, kind, rate, o.half()) }); err != nil {
		return r, err
	}
	for _, name := range proxies {
		r.p50[name] = median(all[name], func(s sample) float64 { return s.p50 })
		r.p99[name] = median(all[name], func(s sample) float64 { return s.p99 })
	}
	return r, nil
}

func median(list []sample, of func(sample) float64) report.Figure {
	var values []float64
	for _, s := range list {
		values = append(values, of(s))
	}
	slices.Sort(values)
	return report.Figure(values[len(values)/2])
}

func tables(results []result) []report.Table {
	labels := []string{"load", "proxy"}
	full := report.Table{Title: "as fast as it goes: what a request costs", Labels: labels, Columns: []string{"CPU us", "of nginx's", "requests/s"}}
	half := report.Table{Title: "at one rate for all, half of the slower one's of nginx and poplin-ingress, over 32 connections (HTTP/2: 8)", Labels: labels, Columns: []string{"requests/s", "p50 ms", "p99 ms", "p99 of nginx's"}}
	for _, r := range results {
		for _, name := range proxies {
			row := []string{r.name, name}
			full.Rows = append(full.Rows, report.Row{Labels: row, Figures: []report.Figure{r.cpu[name], r.cpu[name] / r.cpu[nginx], r.rate[name]}})
			half.Rows = append(half.Rows, report.Row{Labels: row, Figures: []report.Figure{r.at, r.p50[name], r.p99[name], r.p99[name] / r.p99[nginx]}})
		}
	}
	return []report.Table{full, half}
}
