package policies_test

import (
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/kube/kubetest"
	"poplin.dev/poplin/pkg/kube/policies"
	"poplin.dev/poplin/test/await"
)

const (
	nodesAt       = "/api/v1/nodes/"
	definitionsAt = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"
	clusterAt     = "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies/"
	definition    = definitionsAt + "clusternetworkpolicies.policy.networking.k8s.io"
)

// define installs the kind, with one version.
func define(s *kubetest.Server, version string) {
	put(s, definition, object{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"spec":   object{"versions": []any{object{"name": version, "served": true, "storage": true}}},
		"status": object{"conditions": []any{object{"type": "NamesAccepted", "status": "True"}, object{"type": "Established", "status": "True"}}},
	})
}

func putCluster(s *kubetest.Server, name string, spec any) {
	put(s, clusterAt+name, object{"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "spec": spec})
}

// spec is a policy with these rules for what its pods send.
func spec(egress ...any) object {
	return object{"tier": "Admin", "priority": 7, "subject": object{"namespaces": object{}}, "egress": egress}
}

// about waits until the view has a number of objects.
func about(t *testing.T, v *policies.View, resource string, n int) {
	t.Helper()
	await.Success(t, 20*time.Second, func() error {
		if got := v.Keys(resource); len(got) != n {
			return fmt.Errorf("%s: have %v, want %d", resource, got, n)
		}
		return nil
	})
}

// The API server is asked for ClusterNetworkPolicies while it knows them, from
// when to when on ever; without them it costs nothing but the question whether
// somebody has installed the kind, and nobody waits.
func TestClusterPoliciesComeAndGoWithTheirKind(t *testing.T) {
	s := kubetest.New(t)
	asked := func() int { return len(s.Requests("GET /apis/policy.networking.k8s.io/")) }
	v := view(t, s)
	if n := asked(); n != 0 {
		t.Errorf("asked %d times for a kind that nobody has installed", n)
	}
	define(s, "v1beta1")
	putCluster(s, "p", spec())
	time.Sleep(200 * time.Millisecond) // long enough to ask
	if n := asked(); n != 0 {
		t.Errorf("asked %d times for a version that is not served", n)
	}
	for range 2 {
		define(s, "v1alpha2")
		about(t, v, policies.ClusterPolicies, 1)
		s.Delete(definition)
		about(t, v, policies.ClusterPolicies, 0)
		if w := v.Waiting(); w != "" {
			t.Error("without the kind the view waits for ", w)
		}
	}
	// With it, a start waits for all of them.
	define(s, "v1alpha2")
	if n := len(view(t, s).Keys(policies.ClusterPolicies)); n != 1 {
		t.Errorf("a complete view has %d policies, want 1", n)
	}
}

// Nodes are followed while a policy names them, and such a policy waits for
// them: to deny nodes that are not known would be to deny none.
func TestNodesAreFollowedWhileAPolicyNamesThem(t *testing.T) {
	s := kubetest.New(t)
	put(s, nodesAt+"worker-1", object{"apiVersion": "v1", "kind": "Node", "metadata": object{"labels": object{"zone": "a"}}, "status": object{
		"images": []any{object{"names": []any{"much"}}},
		"addresses": []any{object{"type": "Hostname", "address": "worker-1"}, object{"type": "InternalIP", "address": "192.0.2.1"},
			object{"type": "InternalIP", "address": "2001:db8::1"}},
	}})
	define(s, "v1alpha2")
	putCluster(s, "p", spec(object{"action": "Deny", "to": []any{object{"namespaces": object{}}}}))
	everything := make(chan bool, 100)
	v := watched(t, s, func(_ string, keys []policy.Key) { everything <- len(keys) == 0 })
	<-everything // the first view
	if n := s.Requests("GET /api/v1/nodes"); len(n) != 0 {
		t.Errorf("nobody names nodes, and they were asked for: %v", n)
	}
	key := policy.Key{Name: "p"}
	for range 2 {
		putCluster(s, "p", spec(object{"action": "Deny", "to": []any{object{"nodes": object{"matchLabels": object{"zone": "a"}}}}}))
		about(t, v, policies.Nodes, 1)
		for all := range everything {
			if all {
				break // whoever waited is told
			}
		}
		if _, found, waits := v.ClusterPolicy(key); !found || waits {
			t.Errorf("found %v, waits %v with all nodes known", found, waits)
		}
		want := policy.Node{Name: "worker-1", Labels: map[string]string{"zone": "a"},
			Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}
		if got, ok := v.Node(policy.Key{Name: "worker-1"}); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
		putCluster(s, "p", spec())
		about(t, v, policies.Nodes, 0)
	}
}

// A policy that names nodes waits while they cannot be read.
func TestAPolicyWaitsForItsNodes(t *testing.T) {
	s := kubetest.New(t)
	define(s, "v1alpha2")
	v := view(t, s)
	s.Forbid("/api/v1/nodes")
	putCluster(s, "p", spec(object{"action": "Deny", "to": []any{object{"nodes": object{}}}}))
	await.Success(t, 20*time.Second, func() error {
		if _, found, waits := v.ClusterPolicy(policy.Key{Name: "p"}); !found || !waits {
			return fmt.Errorf("found %v, waits %v, want both", found, waits)
		}
		if w := v.Waiting(); !strings.Contains(w, "nodes") || !strings.Contains(w, "forbidden") {
			return errors.New("the view says it waits for " + w)
		}
		return nil
	})
}

// Every form of a rule; what is left of one that is not understood is why.
func TestClusterPolicies(t *testing.T) {
	web := object{"matchLabels": object{"app": "web"}}
	everyone, webs := policy.Selector{}, policy.Selector{{Label: "app", Operator: policy.In, Values: []string{"web"}}}
	anybody := []any{object{"namespaces": object{}}}
	to := func(peers ...any) object { return object{"action": "Accept", "to": peers} }
	on := func(protocols ...any) object {
		return object{"action": "Deny", "name": "n", "to": anybody, "protocols": protocols}
	}
	tcp := func(port object) object { return object{"tcp": object{"destinationPort": port}} }
	for _, c := range []struct {
		name   string
		rule   object
		want   policy.Rule
		unread string // is in Unread
	}{
		{"namespaces", to(object{"namespaces": web}), policy.Rule{Peers: []policy.Peer{{Namespaces: &webs}}}, ""},
		{"pods", to(object{"pods": object{"namespaceSelector": web, "podSelector": object{}}}), policy.Rule{Peers: []policy.Peer{{Namespaces: &webs, Pods: &everyone}}}, ""},
		{"pods of all namespaces", to(object{"pods": object{"podSelector": web}}), policy.Rule{Peers: []policy.Peer{{Namespaces: &everyone, Pods: &webs}}}, ""},
		{"nodes", to(object{"nodes": web}), policy.Rule{Peers: []policy.Peer{{Nodes: &webs}}}, ""},
		{"networks", to(object{"networks": []any{"10.0.0.1/8", "fd00::/8"}}), policy.Rule{Peers: []policy.Peer{
			{Block: netip.MustParsePrefix("10.0.0.1/8")}, {Block: netip.MustParsePrefix("fd00::/8")}}}, ""},
		{"protocols", on(tcp(object{"number": 80}), tcp(object{"range": object{"start": 80, "end": 90}}), object{"udp": object{"destinationPort": object{"number": 53}}},
			object{"sctp": object{"destinationPort": object{"number": 9}}}, object{"destinationNamedPort": "http"}),
			policy.Rule{Peers: []policy.Peer{{Namespaces: &everyone}}, Ports: []policy.Port{
				{Protocol: service.TCP, First: 80, Last: 80}, {Protocol: service.TCP, First: 80, Last: 90}, {Protocol: service.UDP, First: 53, Last: 53},
				{Protocol: service.SCTP, First: 9, Last: 9}, {Name: "http"}}}, ""},

		{"no peer", to(), policy.Rule{}, "to: "},
		{"peers of the other direction", object{"action": "Accept", "from": anybody}, policy.Rule{}, "to: "},
		{"peers of both directions", object{"action": "Accept", "from": anybody, "to": anybody}, policy.Rule{}, "to: "},
		{"a peer of no kind", to(object{"networks": []any{"10.0.0.0/8"}}, object{}), policy.Rule{}, "to[1]: must have exactly one"},
		{"a peer of two kinds", to(object{"namespaces": object{}, "networks": []any{"10.0.0.0/8"}}), policy.Rule{}, "to[0]: must have exactly one"},
		{"a peer of a kind to come", to(object{"serviceAccounts": object{}}), policy.Rule{}, `unknown field "to[0].serviceAccounts"`},
		{"a peer of another shape", to(object{"networks": "10.0.0.0/8"}), policy.Rule{}, "networks"},
		{"domain names", to(object{"domainNames": []any{"*.example.org"}}), policy.Rule{}, "to[0]: domainNames: "},
		{"a network that is none", to(object{"networks": []any{"10.0.0.0/8", "010.0.0.0/8"}}), policy.Rule{}, "to[0]: networks[1]: "},
		{"pods without a podSelector", to(object{"pods": object{"namespaceSelector": object{}}}), policy.Rule{}, "to[0]: pods.podSelector: is missing"},
		{"an operator that is none", to(object{"namespaces": object{"matchExpressions": []any{object{"key": "app", "operator": "in", "values": []any{"web"}}}}}),
			policy.Rule{}, `to[0]: namespaces: "in" is not a valid`},
		{"an operator without values", to(object{"nodes": object{"matchExpressions": []any{object{"key": "app", "operator": "NotIn"}}}}), policy.Rule{}, "to[0]: nodes: "},
		{"a label that is none", to(object{"pods": object{"podSelector": object{"matchLabels": object{"a b": "c"}}}}), policy.Rule{}, "to[0]: pods.podSelector: "},
		{"a protocol to come", on(object{"icmp": object{}}), policy.Rule{}, `unknown field "protocols[0].icmp"`},
		{"a protocol of no kind", on(object{}), policy.Rule{}, "protocols[0]: must have exactly one"},
		{"two protocols in one", on(object{"destinationNamedPort": "http", "udp": object{"destinationPort": object{"number": 1}}}), policy.Rule{}, "protocols[0]: must have"},
		{"what a protocol may have to come", on(object{"tcp": object{"flags": "syn"}}), policy.Rule{}, `unknown field "protocols[0].tcp.flags"`},
		{"a protocol without a port", on(object{"tcp": object{}}), policy.Rule{}, "protocols[0]: tcp.destinationPort: "},
		{"a port of no kind", on(tcp(object{})), policy.Rule{}, "protocols[0]: tcp.destinationPort: "},
		{"a port of two kinds", on(tcp(object{"number": 1, "range": object{"start": 1, "end": 2}})), policy.Rule{}, "protocols[0]: tcp.destinationPort: "},
		{"a range from behind", on(tcp(object{"range": object{"start": 90, "end": 80}})), policy.Rule{}, "90 to 80"},
		{"a port that is none", on(tcp(object{"number": 65536})), policy.Rule{}, "65536"},
		{"a field of rules to come", object{"action": "Deny", "to": anybody, "schedule": "never"}, policy.Rule{}, `unknown field "schedule"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := kubetest.New(t)
			define(s, "v1alpha2")
			putCluster(s, "p", spec(c.rule))
			p, found, _ := view(t, s).ClusterPolicy(policy.Key{Name: "p"})
			if !found || p.Tier != policy.Admin || p.Priority != 7 || p.Pods != nil || len(p.Namespaces) != 0 || len(p.Egress) != 1 || p.Unread != "" {
				t.Fatalf("got %+v", p)
			}
			got := p.Egress[0]
			if want := c.rule["action"]; string(got.Action) != want {
				t.Errorf("action %q, want %q", got.Action, want)
			}
			if !reflect.DeepEqual(got.Rule, c.want) || c.unread == "" && got.Unread != "" || !strings.Contains(got.Unread, c.unread) {
				t.Errorf("got  %+v\nwant %+v with %q", got, c.want, c.unread)
			}
		})
	}
}

// A policy of which nobody knows when it is asked, or about whom, says so.
func TestClusterPoliciesAboutNobody(t *testing.T) {
	for _, c := range []struct {
		change func(o object)
		unread string
	}{
		{func(o object) {}, ""},
		{func(o object) { o["subject"] = object{"pods": object{"podSelector": object{}}} }, ""},
		{func(o object) { o["tier"] = "Middle" }, `spec.tier: "Middle" is neither`},
		{func(o object) { delete(o, "subject") }, "spec.subject: "},
		{func(o object) { o["subject"] = object{} }, "spec.subject: must have exactly one"},
		{func(o object) { o["subject"] = object{"nodes": object{}} }, `spec.subject: unknown field "nodes"`},
		{func(o object) { o["egress"] = "all" }, "spec: "},
	} {
		s := kubetest.New(t)
		define(s, "v1alpha2")
		o := spec(object{"action": "Deny", "to": []any{object{"namespaces": object{}}}})
		c.change(o)
		putCluster(s, "p", o)
		p, found, _ := view(t, s).ClusterPolicy(policy.Key{Name: "p"})
		if !found || (p.Unread == "") != (c.unread == "") || !strings.Contains(p.Unread, c.unread) {
			t.Errorf("%v: unread %q, want %q", o, p.Unread, c.unread)
		}
	}
}
