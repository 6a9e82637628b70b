package policy

import (
	"maps"
	"testing"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/program/permit"
)

// Which namespaces have policies follows every change, and one that is not
// known is not said to have none.
func TestNamespaces(t *testing.T) {
	table := NewTable("worker-1", permit.New())
	deny := policy.NetworkPolicy{Key: policy.Key{Namespace: "shop", Name: "deny"}, Ingress: &policy.Rules{}}
	guard := policy.ClusterPolicy{
		Key: policy.Key{Name: "guard"}, Tier: policy.Admin,
		Namespaces: policy.Selector{{Label: "team", Operator: policy.In, Values: []string{"money"}}},
	}
	unread := policy.ClusterPolicy{Key: guard.Key, Unread: "spec.subject: about whom?"}
	for i, step := range []struct {
		do   func()
		want map[string]bool
	}{
		{func() { table.SetPolicy(deny) }, map[string]bool{}},
		{func() { table.SetNamespace(policy.Namespace{Name: "shop"}) }, map[string]bool{"shop": true}},
		{func() { table.SetNamespace(policy.Namespace{Name: "bank"}) }, map[string]bool{"shop": true, "bank": false}},
		{func() { table.SetClusterPolicy(guard) }, map[string]bool{"shop": true, "bank": false}},
		{func() {
			table.SetNamespace(policy.Namespace{Name: "bank", Labels: map[string]string{"team": "money"}})
		}, map[string]bool{"shop": true, "bank": true}},
		{func() { table.DeletePolicy(deny.Key) }, map[string]bool{"shop": false, "bank": true}},
		{func() { table.SetClusterPolicy(unread) }, map[string]bool{"shop": false, "bank": false}},
		{func() { table.SetClusterPolicy(guard) }, map[string]bool{"shop": false, "bank": true}},
		{func() { table.DeleteClusterPolicy(guard.Key) }, map[string]bool{"shop": false, "bank": false}},
		{func() { table.DeleteNamespace("bank") }, map[string]bool{"shop": false}},
	} {
		step.do()
		if got := table.Namespaces(); !maps.Equal(got, step.want) {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
}
