package ingress

import (
	"maps"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"poplin.dev/poplin/pkg/apply/proxy"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program/web"
	"poplin.dev/poplin/pkg/version"
)

// metrics counts what the proxy does. Series grow with the number of
// Ingresses and with nothing a client chooses: five for each at most. It is
// the proxy's Observer, so what it does per request is a few atomic adds.
type metrics struct {
	registry *prometheus.Registry
	access   *accessLog
	proxy    *proxy.Proxy

	// requests is never changed, only replaced, with mu held: reading it
	// costs a request neither a lock nor an allocation.
	requests atomic.Pointer[map[cluster.ObjectName]*codes]
	duration prometheus.Histogram

	bytesIn, bytesOut, retries, refused atomic.Uint64
	connections                         atomic.Int64

	compile  prometheus.Histogram
	expiry   prometheus.Gauge
	hosts    prometheus.Gauge
	mu       sync.Mutex
	findings map[cluster.ObjectName]int
}

// codes counts answers by the first digit of their status.
type codes [6]atomic.Uint64

var classes = [6]string{"", "1xx", "2xx", "3xx", "4xx", "5xx"}

func newMetrics(access *accessLog) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), access: access, findings: map[cluster.ObjectName]int{}}
	m.requests.Store(&map[cluster.ObjectName]*codes{})
	m.duration = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "poplin_ingress_request_duration_seconds", Help: "From a request's header to its answer's last byte.",
		Buckets: prometheus.ExponentialBuckets(0.001, 2.5, 12), // 1 ms to 24 s
	})
	m.compile = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "poplin_ingress_configuration_duration_seconds", Help: "From a change that was read to the routes in force.",
		Buckets: prometheus.ExponentialBuckets(0.0001, 4, 9),
	})
	m.expiry = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "poplin_ingress_certificate_expiry_timestamp_seconds", Help: "When the first certificate in use expires; 0 if there is none.",
	})
	m.hosts = prometheus.NewGauge(prometheus.GaugeOpts{Name: "poplin_ingress_hosts", Help: "Hosts with routes."})
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "poplin_build_info", Help: "Always 1; the labels say which build this is."}, []string{"version", "commit"})
	build.WithLabelValues(version.Version, version.Commit).Set(1)
	m.registry.MustRegister(m, m.duration, m.compile, m.expiry, m.hosts, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Sample is what a program exports that has answered a request, for whoever
// checks pages and alerts against it.
func Sample() *prometheus.Registry {
	m := newMetrics(&accessLog{off: true})
	m.proxy = proxy.New(proxy.Config{Observer: m})
	m.Done(&proxy.Record{Status: http.StatusOK})
	return m.registry
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Done implements proxy.Observer.
func (m *metrics) Done(r *proxy.Record) {
	m.counters(r.Ingress)[min(max(r.Status/100, 0), 5)].Add(1)
	m.duration.Observe(r.Duration.Seconds())
	m.bytesIn.Add(uint64(r.BytesIn))
	m.bytesOut.Add(uint64(r.BytesOut))
	if r.Attempts > 1 {
		m.retries.Add(uint64(r.Attempts - 1))
	}
	m.access.write(r)
}

func (m *metrics) counters(n cluster.ObjectName) *codes {
	if c := (*m.requests.Load())[n]; c != nil {
		return c
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if c := (*m.requests.Load())[n]; c != nil {
		return c
	}
	next, c := maps.Clone(*m.requests.Load()), new(codes)
	next[n] = c
	m.requests.Store(&next)
	return c
}

// Connections implements proxy.Observer.
func (m *metrics) Connections(delta int) {
	if delta == 0 {
		m.refused.Add(1)
	}
	m.connections.Add(int64(delta))
}

// compiled takes note of a new configuration; the series of an Ingress that
// is gone go with it.
func (m *metrics) compiled(p *web.Program, looked map[cluster.ObjectName]*item, took time.Duration) {
	m.compile.Observe(took.Seconds())
	m.hosts.Set(float64(len(p.Hosts)))
	var first time.Time
	for _, c := range p.Certificates {
		if first.IsZero() || c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	m.expiry.Set(0)
	if !first.IsZero() {
		m.expiry.Set(float64(first.Unix()))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	var next map[cluster.ObjectName]*codes
	for n, i := range looked {
		if i != nil && i.ours {
			m.findings[n] = len(i.findings)
			continue
		}
		delete(m.findings, n)
		if next == nil {
			next = maps.Clone(*m.requests.Load())
		}
		delete(next, n)
	}
	if next != nil {
		m.requests.Store(&next)
	}
}

// counter is a number that is read when asked for.
type counter struct {
	name, help string
	kind       prometheus.ValueType
	read       func(*metrics) float64
}

var counters = []counter{
	{"connections", "Open connections of clients.", prometheus.GaugeValue, func(m *metrics) float64 { return float64(m.connections.Load()) }},
	{"connections_refused_total", "Connections closed at once because there were too many.", prometheus.CounterValue, func(m *metrics) float64 { return float64(m.refused.Load()) }},
	{"requests_active", "Requests and tunnels under way.", prometheus.GaugeValue, func(m *metrics) float64 { return float64(m.proxy.Active()) }},
	{"endpoints", "Endpoints that routes lead to.", prometheus.GaugeValue, func(m *metrics) float64 { return float64(m.proxy.Endpoints()) }},
	{"received_bytes_total", "Bytes of request bodies.", prometheus.CounterValue, func(m *metrics) float64 { return float64(m.bytesIn.Load()) }},
	{"sent_bytes_total", "Bytes of answers' bodies.", prometheus.CounterValue, func(m *metrics) float64 { return float64(m.bytesOut.Load()) }},
	{"retries_total", "Attempts at another endpoint after one failed.", prometheus.CounterValue, func(m *metrics) float64 { return float64(m.retries.Load()) }},
	{"findings", "Things the owners of Ingresses should know; Events say what.", prometheus.GaugeValue, func(m *metrics) float64 {
		m.mu.Lock()
		defer m.mu.Unlock()
		n := 0
		for _, f := range m.findings {
			n += f
		}
		return float64(n)
	}},
}

var requestsDesc = prometheus.NewDesc("poplin_ingress_requests_total", "Requests by Ingress and by the first digit of the answer's status.", []string{"namespace", "ingress", "code"}, nil)

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) { ch <- requestsDesc }

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	for n, codes := range *m.requests.Load() {
		for i := range codes {
			if c := codes[i].Load(); c > 0 {
				ch <- prometheus.MustNewConstMetric(requestsDesc, prometheus.CounterValue, float64(c), n.Namespace, n.Name, classes[i])
			}
		}
	}
	for _, c := range counters {
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("poplin_ingress_"+c.name, c.help, nil, nil), c.kind, c.read(m))
	}
}
