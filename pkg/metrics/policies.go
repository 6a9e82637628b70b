package metrics

import "github.com/prometheus/client_golang/prometheus"

// Policies is what enforcing policies exports.
type Policies struct {
	// Policies counts those of the cluster, Isolated the addresses of this
	// node's pods that they are about, Elements what the kernel's maps hold,
	// Findings what users should mend.
	Policies, Isolated, Elements, Findings prometheus.Gauge
}

// Policies registers the metrics of policies.
func (m *Metrics) Policies() *Policies {
	return &Policies{
		Policies: m.gauge("policies", "NetworkPolicies and ClusterNetworkPolicies of the cluster."),
		Isolated: m.gauge("policy_isolated_addresses", "Addresses of this node's pods that policies are about."),
		Elements: m.gauge("policy_elements", "Elements of the kernel's maps and sets for policies."),
		Findings: m.gauge("policy_findings", "Mistakes in policies that users should mend; Events and the log name them."),
	}
}
