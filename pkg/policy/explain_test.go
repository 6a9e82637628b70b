package policy_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
	policies "poplin.dev/poplin/pkg/policy"
	"poplin.dev/poplin/pkg/program/permit"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// Each explanation names whose rule it is, or whose rules it would have needed.
func TestExplain(t *testing.T) {
	like := func(app string) *policy.Selector {
		return &policy.Selector{{Label: "app", Operator: policy.In, Values: []string{app}}}
	}
	rules := func(list ...policy.Rule) *policy.Rules { r := policy.Rules(list); return &r }
	from := func(app string) policy.Rule { return policy.Rule{Peers: []policy.Peer{{Pods: like(app)}}} }
	table := policies.NewTable("here", permit.New())
	table.SetNamespace(policy.Namespace{Name: "shop"})
	for i, name := range []string{"web", "api", "db"} {
		p := policy.Pod{Key: policy.Key{Namespace: "shop", Name: name}, Node: "here", Labels: map[string]string{"app": name},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)})}}
		if name == "api" {
			p.Node = "there"
		}
		table.SetPod(p)
	}
	explain := func(from, to string) string {
		var lines []string
		for _, d := range table.Explain(policies.Packet{Src: addr(from), Dst: netip.MustParseAddrPort(to), Proto: service.TCP}) {
			lines = append(lines, d.String())
		}
		return strings.Join(lines, "; ")
	}
	expect := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s:\n got %s\nwant %s", what, got, want)
		}
	}
	const web, api, db, host = "10.0.0.1", "10.0.0.2", "10.0.0.3", "192.0.2.1"
	expect("without policies", explain(web, db+":80"),
		"egress of pod shop/web: allowed, no policy says anything of it; ingress of pod shop/db: allowed, no policy says anything of it")
	expect("to itself", explain(web, web+":80"), "")
	expect("pods of other nodes", explain(api, host+":80"), "")

	key := func(name string) policy.Key { return policy.Key{Namespace: "shop", Name: name} }
	table.SetPolicy(policy.NetworkPolicy{Key: key("a"), Pods: *like("db"), Ingress: rules(from("nobody"), from("web"))})
	table.SetPolicy(policy.NetworkPolicy{Key: key("b"), Pods: *like("db"), Ingress: rules()})
	expect("allowed by a rule", explain(web, db+":80"),
		"egress of pod shop/web: allowed, no policy says anything of it; ingress of pod shop/db: allowed by NetworkPolicy shop/a, spec.ingress[1]")
	expect("allowed by none", explain(api, db+":80"),
		"ingress of pod shop/db: denied, isolated by NetworkPolicy shop/a and NetworkPolicy shop/b; none of their rules allows it")

	everybody := policy.Selector{}
	port := []policy.Port{{Protocol: service.TCP, First: 80, Last: 80}}
	table.SetClusterPolicy(policy.ClusterPolicy{Key: policy.Key{Name: "c"}, Tier: policy.Admin, Namespaces: everybody, Egress: []policy.ClusterRule{
		{Action: policy.Pass, Rule: policy.Rule{Ports: port, Peers: []policy.Peer{{Namespaces: &everybody, Pods: like("api")}}}},
		{Action: policy.Deny, Rule: policy.Rule{Ports: port}},
	}})
	table.SetClusterPolicy(policy.ClusterPolicy{Key: policy.Key{Name: "d"}, Tier: policy.Baseline, Namespaces: everybody, Egress: []policy.ClusterRule{
		{Action: policy.Accept},
	}})
	expect("a rule that denies", explain(web, host+":80"), "egress of pod shop/web: denied by ClusterNetworkPolicy c, spec.egress[1]")
	expect("passed on to the baseline", explain(web, api+":80"),
		"egress of pod shop/web: allowed by ClusterNetworkPolicy d, spec.egress[0] (passed on by ClusterNetworkPolicy c, spec.egress[0])")

	text, err := json.Marshal(table.Explain(policies.Packet{Src: addr(api), Dst: netip.MustParseAddrPort(db + ":80"), Proto: service.TCP}))
	if err != nil {
		t.Fatal(err)
	}
	expect("as JSON", string(text), `[{"direction":"ingress","pod":{"namespace":"shop","name":"db"},"allowed":false,"tier":"NetworkPolicy",`+
		`"isolating":[{"kind":"NetworkPolicy","namespace":"shop","name":"a"},{"kind":"NetworkPolicy","namespace":"shop","name":"b"}]}]`)
	if n := len(table.Take().Put.Senders); n == 0 {
		t.Error("explaining has swallowed a change that the kernel needs")
	}
}
