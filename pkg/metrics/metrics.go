// Package metrics counts what the daemon does. Inputs are the outcomes of its
// passes and requests; output is one Prometheus registry as an HTTP handler.
// It refuses labels that grow with the cluster: a label has a value per part
// of the program, never per node or pod, and per policy only up to a limit.
package metrics

import (
	"math"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"poplin.dev/poplin/pkg/version"
)

// Metrics is everything the daemon exports.
type Metrics struct {
	registry *prometheus.Registry

	passes      *prometheus.CounterVec
	duration    *prometheus.HistogramVec
	lastSuccess *prometheus.GaugeVec
	operations  *prometheus.CounterVec
	dials       *prometheus.CounterVec
	requests    *prometheus.CounterVec
	events      *prometheus.CounterVec
	inSync      *prometheus.GaugeVec
	repairs     *prometheus.CounterVec
	adds        *prometheus.HistogramVec
	addresses   *prometheus.GaugeVec

	// Peers is how many other nodes are programmed.
	Peers prometheus.Gauge
	// Silent is how many of them did not answer when they were last asked,
	// DataPath 1 unless this node's own part of the way there is broken.
	Silent, DataPath prometheus.Gauge
	// Refused is how many NodeNetworks are not programmed: they contradict
	// others, or are not understood.
	Refused prometheus.Gauge
	// ChecksumOffload is 1 while the network card fills in checksums of
	// encapsulated packets, ChecksumFaulty where it was found to spoil them.
	ChecksumOffload, ChecksumFaulty prometheus.Gauge
	// Ready is 1 while pods of this node have a network.
	Ready prometheus.Gauge
	// ConflistWrites counts rewrites of the CNI configuration.
	ConflistWrites prometheus.Counter
	// ForeignConfig is how many CNI configurations the container runtime
	// prefers to ours.
	ForeignConfig prometheus.Gauge
	// ConfigPending is 1 while the configuration file says something that
	// takes effect when the daemon restarts; ConfigInvalid while it cannot
	// be used at all.
	ConfigPending, ConfigInvalid prometheus.Gauge
}

// New makes a registry of its own: nothing is shared with another one.
func New() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	build := m.gaugeVec("build_info", "Always 1; the labels say which build this is.", "version", "commit")
	build.WithLabelValues(version.Version, version.Commit).Set(1)

	m.passes = m.counterVec("passes_total", "Passes over a part of the node, by outcome.", "task", "result")
	m.duration = register(m, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "poplin_pass_duration_seconds", Help: "How long a pass took.",
		Buckets: prometheus.ExponentialBuckets(0.001, 4, 9), // 1 ms to 65 s
	}, []string{"task"}))
	m.lastSuccess = m.gaugeVec("last_successful_pass_timestamp_seconds", "When a pass last found or made everything as it should be.", "task")
	m.inSync = m.gaugeVec("in_sync", "1 while the last pass left everything as it should be; 0: the node may have drifted, and the log says why.", "task")
	m.repairs = m.counterVec("repairs_total", "Kernel objects put right that somebody else had changed, by what told of it: an event, a look now and then, a sysctl that differed.", "task", "cause")
	m.operations = m.counterVec("operations_total", "Kernel objects added, changed, removed, or not written because of an error.", "result")
	m.dials = m.counterVec("api_connections_total", "Attempts to connect to the API server, by outcome.", "result")
	m.requests = m.counterVec("api_requests_total", "Lists and watches opened at the API server, by resource and outcome. More than a few an hour: the connection is unsteady.", "resource", "result")
	m.events = m.counterVec("api_events_total", "Objects that came, changed or went, as watches told of them, by resource: what the cluster's churn costs this node.", "resource")

	m.Peers = m.gauge("peers", "Other nodes whose pods this node reaches.")
	m.Silent = m.gauge("peers_silent", "Other nodes that did not answer a packet through the pod network when they were last asked.")
	m.DataPath = m.gauge("data_path_working", "1 unless this node cannot send into the pod network, or none of several other nodes answers.")
	m.Refused = m.gauge("peers_refused", "NodeNetworks that are not programmed; the log and poplinctl status name them.")
	m.ChecksumOffload = m.gauge("checksum_offload", "1 while the network card fills in checksums of encapsulated packets, 0 while the CPU does, which costs throughput.")
	m.ChecksumFaulty = m.gauge("checksum_offload_faulty", "1 where the self-test found that the network card spoils checksums of encapsulated packets.")
	m.adds = register(m, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "poplin_cni_add_duration_seconds", Help: "How long ADDs of the CNI plugin took, by phase: address, links, policies (the wait for them), requests (host ports, bandwidth), result, and in total.",
		Buckets: prometheus.ExponentialBuckets(0.00025, 2, 14), // 0.25 ms to 2 s
	}, []string{"phase"}))
	m.addresses = m.gaugeVec("ipam_addresses", "Addresses for pods on this node: taken, or free.", "family", "state")
	m.Ready = m.gauge("ready", "1 while pods may start on this node.")
	m.ConflistWrites = register(m, prometheus.NewCounter(prometheus.CounterOpts{Name: "poplin_conflist_writes_total", Help: "Writes of the CNI configuration."}))
	m.ForeignConfig = m.gauge("foreign_cni_configurations", "CNI configurations that the container runtime prefers to Poplin's.")
	m.ConfigPending = m.gauge("config_pending", "1 while the configuration file says something that takes effect when the daemon restarts.")
	m.ConfigInvalid = m.gauge("config_invalid", "1 while the configuration file cannot be used; the last good one stays in force.")
	return m
}

// Handler serves the registry.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// Pass counts one pass of a task.
func (m *Metrics) Pass(task string, took time.Duration, err error) {
	m.passes.WithLabelValues(task, outcome(err)).Inc()
	m.duration.WithLabelValues(task).Observe(took.Seconds())
	if err == nil {
		m.lastSuccess.WithLabelValues(task).SetToCurrentTime()
		m.inSync.WithLabelValues(task).Set(1)
	} else {
		m.inSync.WithLabelValues(task).Set(0)
	}
}

// Repaired counts what a pass put right, cause being how it was noticed.
func (m *Metrics) Repaired(task, cause string, n int) {
	m.repairs.WithLabelValues(task, cause).Add(float64(n))
}

// Add counts a phase of an ADD of the CNI plugin.
func (m *Metrics) Add(phase string, took time.Duration) {
	m.adds.WithLabelValues(phase).Observe(took.Seconds())
}

// Addresses says how many of a family are taken, and free.
func (m *Metrics) Addresses(family string, taken, free float64) {
	m.addresses.WithLabelValues(family, "taken").Set(taken)
	m.addresses.WithLabelValues(family, "free").Set(free)
}

// Conntrack exports how many connections the kernel tracks, and at most would:
// read is called for every scrape, and says false where it does not know.
func (m *Metrics) Conntrack(read func() (entries, limit float64, known bool)) {
	value := func(name, help string, pick func(entries, limit float64) float64) {
		register(m, prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "poplin_" + name, Help: help}, func() float64 {
			entries, limit, known := read()
			if !known {
				return math.NaN()
			}
			return pick(entries, limit)
		}))
	}
	value("conntrack_entries", "Connections that the kernel tracks.", func(entries, _ float64) float64 { return entries })
	value("conntrack_entries_limit", "Connections that the kernel tracks at most; beyond, packets are dropped.", func(_, limit float64) float64 { return limit })
}

// Registry is what is exported, for whoever checks pages and alerts against it.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// GuardDrops exports, by reason, what the guards dropped: read is called for
// every scrape. The kernel counts, so a count starts over when its table does.
func (m *Metrics) GuardDrops(read func() map[string]uint64) {
	m.registry.MustRegister(drops{prometheus.NewDesc("poplin_guard_drops_total",
		"Packets that the guards dropped: a pod's with another's source address, or that only routers send; overlay packets that no peer sent.", []string{"reason"}, nil), read})
}

// drops are counters of the kernel's, told apart by one label.
type drops struct {
	desc *prometheus.Desc
	read func() map[string]uint64
}

// Describe implements prometheus.Collector.
func (d drops) Describe(ch chan<- *prometheus.Desc) { ch <- d.desc }

// Collect implements prometheus.Collector.
func (d drops) Collect(ch chan<- prometheus.Metric) {
	for label, n := range d.read() {
		ch <- prometheus.MustNewConstMetric(d.desc, prometheus.CounterValue, float64(n), label)
	}
}

// Operations counts what a pass changed in the kernel.
func (m *Metrics) Operations(added, changed, removed, failed int) {
	for result, n := range map[string]int{"added": added, "changed": changed, "removed": removed, "failed": failed} {
		m.operations.WithLabelValues(result).Add(float64(n))
	}
}

// Dialed implements the API client's Observer.
func (m *Metrics) Dialed(_ string, err error) { m.dials.WithLabelValues(outcome(err)).Inc() }

// Requested implements the API client's Observer.
func (m *Metrics) Requested(resource string, err error) {
	m.requests.WithLabelValues(resource, outcome(err)).Inc()
}

// Heard implements the API client's Observer.
func (m *Metrics) Heard(resource string) { m.events.WithLabelValues(resource).Inc() }

func outcome(err error) string {
	if err != nil {
		return "failed"
	}
	return "ok"
}

func (m *Metrics) gauge(name, help string) prometheus.Gauge {
	return register(m, prometheus.NewGauge(prometheus.GaugeOpts{Name: "poplin_" + name, Help: help}))
}

func (m *Metrics) gaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	return register(m, prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "poplin_" + name, Help: help}, labels))
}

func (m *Metrics) counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	return register(m, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "poplin_" + name, Help: help}, labels))
}

func register[C prometheus.Collector](m *Metrics, c C) C {
	m.registry.MustRegister(c)
	return c
}
