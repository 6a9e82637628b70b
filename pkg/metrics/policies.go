package metrics

import "github.com/prometheus/client_golang/prometheus"

// Policies is what enforcing policies exports.
type Policies struct {
	// Policies counts those of the cluster, Isolated the addresses of this
	// node's pods that they are about, Elements what the kernel's maps hold,
	// Findings what users should mend.
	Policies, Isolated, Elements, Findings prometheus.Gauge
	// Overruns counts how often the kernel told of more drops than was read.
	Overruns prometheus.Counter

	logged *prometheus.CounterVec
	named  map[[3]string]bool
}

// Policies registers the metrics of policies.
func (m *Metrics) Policies() *Policies {
	return &Policies{
		Policies: m.gauge("policies", "NetworkPolicies and ClusterNetworkPolicies of the cluster."),
		Isolated: m.gauge("policy_isolated_addresses", "Addresses of this node's pods that policies are about."),
		Elements: m.gauge("policy_elements", "Elements of the kernel's maps and sets for policies."),
		Findings: m.gauge("policy_findings", "Mistakes in policies that users should mend; Events and the log name them."),
		Overruns: register(m, prometheus.NewCounter(prometheus.CounterOpts{Name: "poplin_policy_drop_log_overruns_total",
			Help: "How often the kernel told of more drops than was read in time."})),
		logged: m.counterVec("policy_logged_drops_total", "Packets dropped that the kernel told of, by each policy that would have had to allow them, or that denies them. "+
			"The first hundred policies have names.", "direction", "kind", "namespace", "name"),
		named: map[[3]string]bool{},
	}
}

// maxNamed is how many policies have counters of their own.
const maxNamed = 100

// Logged counts packets against a policy. Only one caller at a time can.
func (p *Policies) Logged(direction, kind, namespace, name string, packets int) {
	policy := [3]string{kind, namespace, name}
	if !p.named[policy] && len(p.named) == maxNamed {
		policy = [3]string{kind, "", "others"}
	} else {
		p.named[policy] = true
	}
	p.logged.WithLabelValues(direction, policy[0], policy[1], policy[2]).Add(float64(packets))
}

// PolicyDrops exports, by direction, what policies dropped: read is called for
// every scrape, as with GuardDrops.
func (m *Metrics) PolicyDrops(read func() map[string]uint64) {
	m.registry.MustRegister(drops{prometheus.NewDesc("poplin_policy_drops_total",
		"Packets from (egress) or to (ingress) pods of this node that policies dropped.", []string{"direction"}, nil), read})
}
