package facts_test

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
)

// TestClusterJSON: what isolates, and what selects everything, is read as it was
// written; nothing at all is another thing.
func TestClusterJSON(t *testing.T) {
	everything, none := policy.Selector(nil), policy.Rules(nil)
	key := service.Key{Namespace: "shop", Name: "web"}
	c := facts.Cluster{
		Since: time.Unix(1, 0).UTC(), Problem: "refused", Missing: map[string]string{"policy": "late"},
		Self:     cluster.Self{Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		Nodes:    []cluster.Node{{Name: "n1", VTEP: cluster.VTEP{Addr: netip.MustParseAddr("192.0.2.1"), MAC: cluster.MACOf("n1")}, MTU: 1450}},
		Services: []service.Service{{Key: key, Type: service.NodePort, Ports: []service.Port{{Protocol: service.UDP, Port: 53}}}},
		Slices:   []service.Slice{{Key: key, Service: "web", Family: 4, Endpoints: []service.Endpoint{{Addr: netip.MustParseAddr("10.0.0.1"), Ready: true}}}},
		Ranges:   []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
		Policy: policy.Objects{
			Pods: []policy.Pod{{Key: key, Node: "n1", Labels: map[string]string{"app": "web"}}},
			Policies: []policy.NetworkPolicy{
				{Key: key, Ingress: &none},
				{Key: key, Egress: &policy.Rules{{Peers: []policy.Peer{{Namespaces: &everything}, {Pods: &everything}}}, {}}},
			},
			Cluster: []policy.ClusterPolicy{{Key: key, Tier: policy.Admin, Pods: &everything, Egress: []policy.ClusterRule{{Action: policy.Deny}}}},
		},
	}
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	var back facts.Cluster
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(back)
	if err != nil || string(again) != string(text) {
		t.Errorf("%v\n%s\nis read as\n%s", err, text, again)
	}
	p := back.Policy.Policies
	if p[0].Ingress == nil || p[0].Egress != nil || p[1].Ingress != nil {
		t.Errorf("directions: %+v", p)
	}
	rules := *p[1].Egress
	if rules[0].Peers[0].Namespaces == nil || rules[0].Peers[0].Pods != nil || rules[0].Peers[1].Namespaces != nil || rules[1].Peers != nil || rules[1].Ports != nil {
		t.Errorf("peers: %+v", rules)
	}
	back.Policy, c.Policy = policy.Objects{}, policy.Objects{}
	if !reflect.DeepEqual(back, c) {
		t.Errorf("%+v is read as %+v", c, back)
	}
}
