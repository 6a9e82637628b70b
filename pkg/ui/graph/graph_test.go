package graph

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/trace/way"
	"poplin.dev/poplin/test/golden"
)

func read[T any](t *testing.T, texts ...string) (list []T) {
	t.Helper()
	for _, text := range texts {
		var o T
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		list = append(list, o)
	}
	return list
}

func podText(name, node, ip, ready, more string) string {
	return fmt.Sprintf(`{"metadata":{"namespace":"blue","name":%q,"labels":{"app":%[1]q}},"spec":{"nodeName":%q,"containers":[{"name":"c","ports":[{"containerPort":8080}]}]%[5]s},
		"status":{"phase":"Running","podIPs":[{"ip":%[3]q}],"conditions":[{"type":"Ready","status":%[4]q}]}}`, name, node, ip, ready, more)
}

// shop has a bit of everything: an Ingress to one good Service and two that
// are not there, a Service that selects nobody, a node without a daemon, a pod
// that waits for a node, and policies of both kinds.
func shop(t *testing.T) Input {
	t.Helper()
	daemon := `{"metadata":{"namespace":"poplin-system","name":"poplind-%[1]s","labels":{"app.kubernetes.io/name":"poplind"}},"spec":{"nodeName":%[1]q,"hostNetwork":true},
		"status":{"phase":"Running","podIPs":[{"ip":"192.0.2.%[2]d"}],"conditions":[{"type":"Ready","status":%[3]q}]}}`
	node := `{"metadata":{"name":"n%[1]d"},"spec":{"podCIDRs":["10.244.%[1]d.0/24"]},"status":{"addresses":[{"type":"InternalIP","address":"192.0.2.%[1]d"}],"conditions":[{"type":"Ready","status":%[2]q,"reason":"KubeletNotReady","message":"it said so"}]}}`
	all := policy.Rules{}
	return Input{
		Now:      time.Unix(1, 0).UTC(),
		Nodes:    read[object.Node](t, fmt.Sprintf(node, 2, "True"), fmt.Sprintf(node, 1, "True"), fmt.Sprintf(node, 3, "False")),
		Networks: []cluster.Node{{Name: "n1", MTU: 1450}, {Name: "n2", MTU: 1450}},
		Pods: read[object.Pod](t,
			podText("web-2", "n2", "10.244.2.7", "False", ""), podText("web-1", "n1", "10.244.1.7", "True", ""), podText("new", "", "", "False", ""),
			`{"metadata":{"namespace":"blue","name":"done"},"spec":{"nodeName":"n1"},"status":{"phase":"Succeeded"}}`,
			fmt.Sprintf(daemon, "n1", 1, "True"), fmt.Sprintf(daemon, "n2", 2, "False"),
		),
		Services: read[object.Service](t,
			`{"metadata":{"namespace":"blue","name":"web"},"spec":{"type":"NodePort","clusterIPs":["10.96.0.9"],"ports":[{"name":"http","port":80,"targetPort":8080,"nodePort":30080}]}}`,
			`{"metadata":{"namespace":"blue","name":"nobody"},"spec":{"type":"ClusterIP","clusterIPs":["10.96.0.8"],"selector":{"app":"wbe"},"ports":[{"port":80,"targetPort":"http"}]}}`,
		),
		Slices: read[object.Slice](t, `{"metadata":{"namespace":"blue","name":"web-x","labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv4","ports":[{"name":"http","port":8080,"protocol":"TCP"}],
			"endpoints":[{"addresses":["10.244.1.7"],"conditions":{"ready":true}},{"addresses":["10.244.2.7"],"conditions":{"ready":false}},{"addresses":["203.0.113.1"]}]}`),
		Ingresses: read[object.Ingress](t, `{"metadata":{"namespace":"blue","name":"shop"},"spec":{"ingressClassName":"poplin","tls":[{"hosts":["shop.example.com"],"secretName":"a-secret"}],"rules":[
			{"host":"shop.example.com","http":{"paths":[{"path":"/","backend":{"service":{"name":"web","port":{"number":80}}}},{"path":"/old","backend":{"service":{"name":"gone","port":{"number":80}}}}]}},
			{"host":"*.example.com","http":{"paths":[{"path":"/","backend":{"service":{"name":"web","port":{"name":"metrics"}}}}]}}]}}`),
		Policies: policy.Objects{
			Pods: []policy.Pod{
				{Key: policy.Key{Namespace: "blue", Name: "web-1"}, Labels: map[string]string{"app": "web-1"}},
				{Key: policy.Key{Namespace: "blue", Name: "web-2"}, Labels: map[string]string{"app": "web-2"}},
			},
			Namespaces: []policy.Namespace{{Name: "blue", Labels: map[string]string{"team": "blue"}}},
			Policies: []policy.NetworkPolicy{
				{Key: policy.Key{Namespace: "blue", Name: "one"}, Pods: policy.Selector{{Label: "app", Operator: policy.In, Values: []string{"web-1"}}}, Ingress: &policy.Rules{{Ports: []policy.Port{{}}}}, Egress: &all},
				{Key: policy.Key{Namespace: "red", Name: "elsewhere"}, Ingress: &all},
			},
			Cluster: []policy.ClusterPolicy{{
				Key: policy.Key{Name: "tenants"}, Tier: policy.Admin, Priority: 5, Namespaces: policy.Selector{{Label: "team", Operator: policy.Exists}},
				Ingress: []policy.ClusterRule{{Action: policy.Accept}, {Action: policy.Accept}, {Action: policy.Deny}},
			}},
		},
		Missing: []string{"EndpointSlices: you may not"},
	}
}

func TestBuild(t *testing.T) {
	text, err := json.MarshalIndent(Build(shop(t)), "", " ")
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, "testdata/shop.json", string(text)+"\n")
}

// Every list is a list in JSON, also where there is nothing.
func TestNothing(t *testing.T) {
	const want = `{"taken":"0001-01-01T00:00:00Z","nodes":[],"pods":[],"services":[],"ingresses":[],"policies":[],"edges":[],"missing":[]}`
	if text, err := json.Marshal(Build(Input{})); err != nil || string(text) != want {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestPlace(t *testing.T) {
	g := Build(shop(t))
	sections := []way.Section{{From: "pod/blue/client", To: "service/blue/web"}, {From: "service/blue/web", To: "pod/blue/web-1"}}
	for _, row := range []struct {
		hop  way.Hop
		want string
	}{
		{way.Hop{Hop: way.DNS, About: "name service/web"}, "service/blue/web"},
		{way.Hop{Hop: way.Service, About: "Service blue/web"}, "service/blue/web"},
		{way.Hop{Hop: way.Endpoints, About: "Service blue/web, IPv4"}, "service/blue/web"},
		{way.Hop{Hop: way.PolicyIngress, Node: "n1", About: "pod blue/web-1"}, "pod/blue/web-1"},
		{way.Hop{Hop: way.Socket, Node: "n1", About: "10.244.1.7:8080/tcp"}, "pod/blue/web-1"},
		{way.Hop{Hop: way.Socket, Node: "n1", About: "192.0.2.1:22/tcp"}, "node/n1"},
		{way.Hop{Hop: way.Overlay, Node: "n1", About: "way to node n2"}, "node/n1"},
		{way.Hop{Hop: way.IngressRoute, About: "shop.example.com/cart"}, "ingress/blue/shop"},
		{way.Hop{Hop: way.IngressTLS, About: "shop.example.com"}, "ingress/blue/shop"},
		{way.Hop{Hop: way.IngressRoute, About: "shop.example.co/cart"}, ""},
		{way.Hop{Hop: way.IngressProgram, About: "poplin-ingress"}, "service/blue/web"},
	} {
		got := g.Place(way.Report{Hops: []way.Hop{row.hop}, Sections: sections})
		if len(got.Hops) != 1 || got.Hops[0].At != row.want {
			t.Errorf("%s %q: %+v, want %q", row.hop.Hop, row.hop.About, got.Hops, row.want)
		}
	}
}

// Whatever is wrong on the way is seen on the part of it where it is wrong, and
// not on others.
func TestSections(t *testing.T) {
	g := Graph{Pods: []Pod{
		{Thing: Thing{ID: "pod/client"}, Node: "n1"}, {Thing: Thing{ID: "pod/near"}, Node: "n1"}, {Thing: Thing{ID: "pod/far"}, Node: "n2"}, {Thing: Thing{ID: "pod/third"}, Node: "n3"},
	}}
	sections := []way.Section{
		{From: "pod/client", To: "service/web"}, {From: "service/web", To: "pod/near"}, {From: "service/web", To: "pod/far"}, {From: "service/web", To: "pod/third"},
	}
	for _, row := range []struct {
		hop  way.Hop
		want string
	}{
		{way.Hop{Hop: way.PolicyEgress, Node: "n1", About: "pod client"}, "BROKEN - - -"},
		{way.Hop{Hop: way.Service, About: "Service web"}, "BROKEN - - -"},
		{way.Hop{Hop: way.ServiceProgram, Node: "n1", About: "10.96.0.9:80/tcp"}, "BROKEN - - -"},
		{way.Hop{Hop: way.Daemon, Node: "n1", About: "poplind"}, "BROKEN - - -"},
		{way.Hop{Hop: way.Node, Node: "n2", About: "node n2"}, "- - BROKEN -"},
		{way.Hop{Hop: way.Overlay, Node: "n1", About: "way to node n2"}, "- - BROKEN -"},
		{way.Hop{Hop: way.Return, Node: "n2", About: "way back to node n1"}, "- - BROKEN -"},
		{way.Hop{Hop: way.Decapsulation, Node: "n3", About: "poplin-vx"}, "- - - BROKEN"},
		{way.Hop{Hop: way.PolicyIngress, Node: "n1", About: "pod near"}, "- BROKEN - -"},
	} {
		row.hop.Status = way.Broken
		got := ""
		for _, s := range g.Place(way.Report{Hops: []way.Hop{row.hop}, Sections: sections}).Sections {
			got += " " + cmp.Or(string(s.Status), "-")
		}
		if got != " "+row.want {
			t.Errorf("%s %q:%s, want %s", row.hop.Hop, row.hop.About, got, row.want)
		}
	}
}

// An endpoint with the address of a node is the pod that is named, or selected.
func TestPodsOfNodes(t *testing.T) {
	in := Input{
		Pods: read[object.Pod](t, podText("a", "n1", "192.0.2.1", "True", `,"hostNetwork":true`), podText("b", "n1", "192.0.2.1", "True", `,"hostNetwork":true`)),
		Services: read[object.Service](t, `{"metadata":{"namespace":"blue","name":"b"},"spec":{"selector":{"app":"b"}}}`,
			`{"metadata":{"namespace":"blue","name":"named"},"spec":{}}`, `{"metadata":{"namespace":"blue","name":"host"},"spec":{}}`),
	}
	for _, s := range in.Services {
		target := ""
		if s.Name == "named" {
			target = `,"targetRef":{"kind":"Pod","name":"b"}`
		}
		in.Slices = append(in.Slices, read[object.Slice](t, fmt.Sprintf(`{"metadata":{"namespace":"blue","name":"x","labels":{"kubernetes.io/service-name":%q}},"endpoints":[{"addresses":["192.0.2.1"]%s}]}`, s.Name, target))...)
	}
	g := Build(in)
	if want := []Edge{{From: "service/blue/b", To: "pod/blue/b", Ready: true}, {From: "service/blue/named", To: "pod/blue/b", Ready: true}}; fmt.Sprint(g.Edges) != fmt.Sprint(want) {
		t.Errorf("%+v", g.Edges)
	}
	if s := g.Services[1]; s.Name != "host" || s.Endpoints != 1 || s.Ready != 1 || len(s.Problems) > 0 {
		t.Errorf("%+v", s)
	}
	if p := g.Pods[0]; !p.HostNetwork || len(p.Addresses) != 1 || p.Addresses[0] != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("%+v", p)
	}
}
