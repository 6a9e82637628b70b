package policies_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/kube"
	"poplin.dev/poplin/pkg/kube/kubetest"
	"poplin.dev/poplin/pkg/kube/policies"
	"poplin.dev/poplin/test/await"
)

type object = kubetest.Object

const (
	podsAt       = "/api/v1/namespaces/shop/pods/"
	namespacesAt = "/api/v1/namespaces/"
	policiesAt   = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/"
)

func view(t *testing.T, s *kubetest.Server) *policies.View {
	t.Helper()
	return watched(t, s, func(string, []policy.Key) {})
}

// watched is a view with a subscriber.
func watched(t *testing.T, s *kubetest.Server, changed func(resource string, keys []policy.Key)) *policies.View {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	c, err := kube.New(kube.Config{NodeName: "worker-1", Endpoints: []string{s.URL()}, Credentials: s.Credentials(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Policies()
	if err != nil {
		t.Fatal(err)
	}
	v.Subscribe(changed)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = v.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	select {
	case <-v.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("not ready: ", v.Waiting())
	}
	return v
}

func put(s *kubetest.Server, at string, o object) {
	parts := strings.Split(strings.Trim(at, "/"), "/")
	meta, _ := o["metadata"].(object)
	if meta == nil {
		meta = object{}
	}
	meta["name"], meta["creationTimestamp"] = parts[len(parts)-1], "2026-01-02T03:04:05Z"
	if strings.Contains(at, "/namespaces/shop/") {
		meta["namespace"] = "shop"
	}
	o["metadata"] = meta
	s.Put("/"+strings.Join(parts[:len(parts)-1], "/"), o)
}

var created = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// What stays of a pod, and which pods policies do not see.
func TestPods(t *testing.T) {
	s := kubetest.New(t)
	pod := func(spec, status object) object {
		return object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"uid": "7", "labels": object{"app": "web"}, "annotations": object{"much": "text"}}, "spec": spec, "status": status}
	}
	running := object{"phase": "Running", "podIPs": []any{object{"ip": "10.244.1.2"}, object{"ip": "fd00::2"}}}
	port := func(name string, n int, proto string) object {
		return object{"name": name, "containerPort": n, "protocol": proto}
	}
	put(s, podsAt+"web", pod(object{
		"nodeName": "worker-1",
		"containers": []any{
			object{"name": "a", "ports": []any{port("http", 8080, "TCP"), object{"containerPort": 1}}},
			object{"name": "b", "ports": []any{port("dns", 53, "UDP")}},
		},
		"initContainers": []any{
			object{"name": "c", "restartPolicy": "Always", "ports": []any{port("metrics", 9090, "TCP")}},
			object{"name": "d", "ports": []any{port("never", 1, "TCP")}},
		},
	}, running))
	put(s, podsAt+"host", pod(object{"nodeName": "worker-1", "hostNetwork": true}, running))
	put(s, podsAt+"ended", pod(object{"nodeName": "worker-1"}, object{"phase": "Succeeded", "podIPs": running["podIPs"]}))
	// The kubelet runs a static pod under another UID than the API server's copy has.
	static := pod(object{"nodeName": "worker-1"}, object{})
	static["metadata"].(object)["annotations"] = object{"kubernetes.io/config.mirror": "static-7", "kubernetes.io/config.hash": "static-7"}
	static["metadata"].(object)["uid"] = "8"
	put(s, podsAt+"static", static)
	v := view(t, s)
	if p, ok := v.Pod(policy.Key{Namespace: "shop", Name: "static"}); !ok || p.UID != "static-7" {
		t.Errorf("static pod: %+v", p)
	}
	want := policy.Pod{
		Key: policy.Key{Namespace: "shop", Name: "web"}, UID: "7", Node: "worker-1", Labels: map[string]string{"app": "web"}, Created: created,
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd00::2")},
		Ports: []policy.NamedPort{{Name: "http", Protocol: service.TCP, Port: 8080}, {Name: "dns", Protocol: service.UDP, Port: 53},
			{Name: "metrics", Protocol: service.TCP, Port: 9090}},
	}
	got, ok := v.Pod(want.Key)
	got.Created = got.Created.UTC()
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, name := range []string{"host", "ended"} {
		if p, ok := v.Pod(policy.Key{Namespace: "shop", Name: name}); ok {
			t.Errorf("policies see %+v", p)
		}
	}
	put(s, podsAt+"web", pod(object{"nodeName": "worker-1"}, object{"phase": "Failed", "podIPs": running["podIPs"]}))
	await.Success(t, 10*time.Second, func() error {
		if _, still := v.Pod(want.Key); still {
			return fmt.Errorf("a pod that has failed still has its addresses")
		}
		return nil
	})
}

// Every form of a NetworkPolicy.
func TestNetworkPolicies(t *testing.T) {
	labels := func(l object) object { return object{"matchLabels": l} }
	web := policy.Selector{{Label: "app", Operator: policy.In, Values: []string{"web"}}}
	everyone := policy.Selector{}
	both := []any{"Ingress", "Egress"}
	for _, c := range []struct {
		name string
		spec object
		want policy.NetworkPolicy
	}{
		{"ingress that allows nobody", object{"podSelector": object{}, "policyTypes": []any{"Ingress"}},
			policy.NetworkPolicy{Pods: everyone, Ingress: &policy.Rules{}}},
		{"both that allow nobody", object{"podSelector": labels(object{"app": "web"}), "policyTypes": both},
			policy.NetworkPolicy{Pods: web, Ingress: &policy.Rules{}, Egress: &policy.Rules{}}},
		{"empty lists are everybody", object{"podSelector": object{}, "policyTypes": []any{"Ingress"}, "ingress": []any{object{"from": []any{}, "ports": []any{}}}},
			policy.NetworkPolicy{Pods: everyone, Ingress: &policy.Rules{{}}}},
		{"peers", object{"podSelector": object{}, "policyTypes": []any{"Egress"}, "egress": []any{object{"to": []any{
			object{"podSelector": labels(object{"app": "web"})}, object{"namespaceSelector": object{}},
			object{"podSelector": object{}, "namespaceSelector": labels(object{"app": "web"})},
			object{"ipBlock": object{"cidr": "10.0.0.0/8", "except": []any{"10.1.0.0/16"}}},
			object{"ipBlock": object{"cidr": "nonsense"}}, object{},
		}}}}, policy.NetworkPolicy{Pods: everyone, Egress: &policy.Rules{{Peers: []policy.Peer{
			{Pods: &web}, {Namespaces: &everyone}, {Pods: &everyone, Namespaces: &web},
			{Block: netip.MustParsePrefix("10.0.0.0/8"), Except: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}},
			{Unknown: true}, {Unknown: true},
		}}}}},
		{"ports", object{"podSelector": object{}, "policyTypes": []any{"Ingress"}, "ingress": []any{object{"ports": []any{
			object{"port": 80}, object{"port": "http", "protocol": "UDP"}, object{"protocol": "SCTP"}, object{"port": 80, "endPort": 90},
			object{"port": 90, "endPort": 80}, object{"port": 90, "endPort": 70000}, object{"endPort": 80},
		}}}}, policy.NetworkPolicy{Pods: everyone, Ingress: &policy.Rules{{Ports: []policy.Port{
			{Protocol: service.TCP, First: 80, Last: 80}, {Protocol: service.UDP, Name: "http"}, {Protocol: service.SCTP},
			{Protocol: service.TCP, First: 80, Last: 90}, {Protocol: service.TCP, First: 90, Last: 80},
			{Protocol: service.TCP, First: 90, Last: 0}, {Protocol: service.TCP, First: 1, Last: 0},
		}}}}},
		{"requirements", object{"podSelector": object{"matchExpressions": []any{
			object{"key": "app", "operator": "NotIn", "values": []any{"a", "b"}}, object{"key": "tier", "operator": "Exists"},
		}}, "policyTypes": []any{"Ingress"}}, policy.NetworkPolicy{Ingress: &policy.Rules{}, Pods: policy.Selector{
			{Label: "app", Operator: policy.NotIn, Values: []string{"a", "b"}}, {Label: "tier", Operator: policy.Exists}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := kubetest.New(t)
			put(s, policiesAt+"p", object{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": c.spec})
			c.want.Key = policy.Key{Namespace: "shop", Name: "p"}
			if got, ok := view(t, s).Policy(c.want.Key); !ok || !reflect.DeepEqual(got, c.want) {
				t.Errorf("got  %+v\nwant %+v", got, c.want)
			}
		})
	}
}

func TestNamespaces(t *testing.T) {
	s := kubetest.New(t)
	put(s, namespacesAt+"shop", object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"labels": object{"team": "sales"}}})
	v := view(t, s)
	n, ok := v.Namespace(policy.Key{Name: "shop"})
	if want := (policy.Namespace{Name: "shop", Labels: map[string]string{"team": "sales"}}); !ok || !reflect.DeepEqual(n, want) {
		t.Errorf("got %+v, want %+v", n, want)
	}
}
