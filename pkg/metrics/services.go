package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Services is what serving Services exports. The names and meanings are
// kube-proxy's, with poplin_ in place of kubeproxy_, so that dashboards and
// alerts need one word changed.
type Services struct {
	sync, full, partial, programming prometheus.Histogram
	last, queued                     prometheus.Gauge
	pending                          map[string]prometheus.Gauge
	total                            map[string]prometheus.Counter
	failures, ended                  prometheus.Counter
	starved                          *prometheus.GaugeVec
	// Elements is what the kernel's maps hold, Findings what users should
	// mend, Problems what administrators should.
	Elements, Findings, Problems prometheus.Gauge
}

// Services registers the metrics of Services.
func (m *Metrics) Services() *Services {
	histogram := func(name, help string, buckets []float64) prometheus.Histogram {
		return register(m, prometheus.NewHistogram(prometheus.HistogramOpts{Name: "poplin_" + name, Help: help, Buckets: buckets}))
	}
	counter := func(name, help string) prometheus.Counter {
		return register(m, prometheus.NewCounter(prometheus.CounterOpts{Name: "poplin_" + name, Help: help}))
	}
	fine := prometheus.ExponentialBuckets(0.0005, 2, 16) // 0.5 ms to 16 s
	s := &Services{
		sync:    histogram("sync_proxy_rules_duration_seconds", "How long it took to bring the kernel up to date.", fine),
		full:    histogram("sync_full_proxy_rules_duration_seconds", "How long it took to bring the kernel up to date, where all Services were compiled.", fine),
		partial: histogram("sync_partial_proxy_rules_duration_seconds", "How long it took to bring the kernel up to date, where only Services that changed were compiled.", fine),
		programming: histogram("network_programming_duration_seconds", "From the change of a pod or Service, as the EndpointSlice has it, to the kernel.",
			prometheus.ExponentialBuckets(0.01, 2, 16)), // 10 ms to 5.5 min
		last:     m.gauge("sync_proxy_rules_last_timestamp_seconds", "When the kernel was last brought up to date."),
		queued:   m.gauge("sync_proxy_rules_last_queued_timestamp_seconds", "When a change last came in."),
		failures: counter("sync_proxy_rules_nftables_sync_failures_total", "Passes that the kernel refused, in part or whole."),
		ended:    counter("conntrack_reconciler_deleted_entries_total", "UDP flows ended because their endpoint or Service is gone."),
		starved:  m.gaugeVec("sync_proxy_rules_no_local_endpoints_total", "Service ports with traffic policy Local that have endpoints, but none on this node.", "traffic_policy"),
		Elements: m.gauge("services_elements", "Elements of the kernel's maps and sets for Services."),
		Findings: m.gauge("services_findings", "Mistakes in Services and EndpointSlices that users should mend; Events and the log name them."),
		Problems: m.gauge("services_problems", "Settings of the node that could not be made as they should be for Services; the log names them."),
		pending:  map[string]prometheus.Gauge{},
		total:    map[string]prometheus.Counter{},
	}
	for resource, name := range map[string]string{"services": "service", "endpointslices": "endpoint"} {
		s.pending[resource] = m.gauge("sync_proxy_rules_"+name+"_changes_pending", "Changes of "+resource+" that are not in the kernel yet.")
		s.total[resource] = counter("sync_proxy_rules_"+name+"_changes_total", "Changes of "+resource+".")
	}
	return s
}

// Changed counts changes that came in.
func (s *Services) Changed(resource string, n int) {
	s.queued.SetToCurrentTime()
	if total, counted := s.total[resource]; counted {
		total.Add(float64(n))
		s.pending[resource].Add(float64(n))
	}
}

// Pass counts a pass over the kernel, after which nothing that came before it
// is pending.
func (s *Services) Pass(took time.Duration, full bool, err error) {
	if err != nil {
		s.failures.Inc()
		return
	}
	part := s.partial
	if full {
		part = s.full
	}
	s.sync.Observe(took.Seconds())
	part.Observe(took.Seconds())
	s.last.SetToCurrentTime()
	for _, p := range s.pending {
		p.Set(0)
	}
}

// Programmed counts the way of changes from their cause to the kernel.
func (s *Services) Programmed(took []time.Duration) {
	for _, d := range took {
		s.programming.Observe(d.Seconds())
	}
}

// Ended counts UDP flows.
func (s *Services) Ended(n int) { s.ended.Add(float64(n)) }

// Starved counts service ports without an endpoint on this node.
func (s *Services) Starved(internal, external int) {
	s.starved.WithLabelValues("internal").Set(float64(internal))
	s.starved.WithLabelValues("external").Set(float64(external))
}
