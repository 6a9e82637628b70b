package policies

import "poplin.dev/poplin/pkg/cluster/policy"

// DecodePod reads a Pod in the API's protobuf form; seen is false for one that
// policies do not see.
func DecodePod(b []byte) (p policy.Pod, seen bool, err error) {
	var o podObject
	err = o.Unmarshal(b)
	return o.value, !o.absent, err
}

// DecodePolicy reads a NetworkPolicy in the API's protobuf form.
func DecodePolicy(b []byte) (policy.NetworkPolicy, error) {
	var o policyObject
	err := o.Unmarshal(b)
	return o.value, err
}

// DecodeClusterPolicy reads the spec of a ClusterNetworkPolicy, which is JSON.
func DecodeClusterPolicy(name string, spec []byte) policy.ClusterPolicy {
	return readCluster(name, spec)
}
