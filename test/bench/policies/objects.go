package policies

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"poplin.dev/poplin/test/bench/pair"
	"poplin.dev/poplin/test/bench/plane"
)

type object = map[string]any

// atOnce is how many requests are on their way.
const atOnce = 16

// become adds namespaces until there are so many, and spreads the pods of the
// daemon's node over all of them.
func (l *lab) become(ctx context.Context, s size) error {
	before := int(l.crowd)
	l.crowd = s
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for n := before; n < int(s); n++ {
		g.Go(func() error { return l.namespace(inner, n) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i := range fullNode - 2 {
		name := fmt.Sprint("local-", i)
		if before > 0 {
			if err := l.API.Send(ctx, http.MethodDelete, podsPath(i%before)+"/"+name, object{"gracePeriodSeconds": 0}, nil); err != nil {
				return err
			}
		}
		if err := l.pod(ctx, i%int(s), name, self, local(i), labels(i)); err != nil {
			return err
		}
	}
	if before > 0 {
		return nil
	}
	return errors.Join(
		l.pod(ctx, 0, "client", self, l.pair.Client, object{"app": "a0", "tier": "front"}),
		l.pod(ctx, 0, "server", self, l.pair.Server, object{"app": "a1", "tier": "back"}))
}

// local is the address of the i-th of the node's own pods.
func local(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 255, number, byte(100 + i)}) }

func space(n int) string { return fmt.Sprint("ns-", n) }

// namespace makes one with all it holds, none of which is on this node.
func (l *lab) namespace(ctx context.Context, n int) error {
	if err := l.API.Send(ctx, http.MethodPost, "/api/v1/namespaces", object{
		"metadata": object{"name": space(n), "labels": object{"team": fmt.Sprint("t", n%10)}},
	}, nil); err != nil {
		return err
	}
	if err := l.API.Send(ctx, http.MethodPost, "/api/v1/namespaces/"+space(n)+"/serviceaccounts",
		object{"metadata": object{"name": "default"}}, nil); err != nil {
		return err
	}
	for _, p := range policies(n, 9100) {
		if err := l.API.Send(ctx, http.MethodPost, policiesPath(n), p, nil); err != nil {
			return err
		}
	}
	for i := range podsEach {
		if err := l.pod(ctx, n, podName(i), fmt.Sprint("other-", i), address(n, i), labels(i)); err != nil {
			return err
		}
	}
	return nil
}

func podName(i int) string { return fmt.Sprint("p-", i) }

// address is that of the i-th pod of a namespace.
func address(n, i int) netip.Addr {
	at := n*podsEach + i
	return netip.AddrFrom4([4]byte{10, 130, byte(at >> 8), byte(at)})
}

// labels are those of the i-th pod of a namespace: ten applications, two tiers.
func labels(i int) object {
	return object{"app": fmt.Sprint("a", i%10), "tier": []string{"front", "back"}[i/10%2]}
}

func podsPath(n int) string { return "/api/v1/namespaces/" + space(n) + "/pods" }

// pod makes one that has an address.
func (l *lab) pod(ctx context.Context, n int, name, node string, a netip.Addr, labels object) error {
	o := object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": name, "labels": labels},
		"spec": object{
			"nodeName": node, "serviceAccountName": "default", "automountServiceAccountToken": false,
			"containers": []object{{"name": "c", "image": "x", "ports": []object{{"name": "http", "containerPort": pair.Port}}}},
		},
	}
	if err := l.API.Send(ctx, http.MethodPost, podsPath(n), o, nil); err != nil {
		return err
	}
	o["status"] = object{"phase": "Running", "podIP": a, "podIPs": []object{{"ip": a}}}
	return l.API.Send(ctx, http.MethodPut, podsPath(n)+"/"+name+"/status", o, nil)
}

// relabel gives a pod another application, and a mark that an event shows.
func (l *lab) relabel(ctx context.Context, n, i int, app, mark string) error {
	return l.API.Send(ctx, http.MethodPatch, podsPath(n)+"/"+podName(i)+"?fieldManager=bench&force=true", object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": podName(i), "labels": object{"app": app, "mark": mark}},
	}, nil)
}

func policiesPath(n int) string {
	return "/apis/networking.k8s.io/v1/namespaces/" + space(n) + "/networkpolicies"
}

// monitored is the policy that is changed.
const monitored = "monitored"

// rewrite has the pods of a namespace be reached at another port for monitoring.
func (l *lab) rewrite(ctx context.Context, n, port int) error {
	for _, p := range policies(n, port) {
		if p["metadata"].(object)["name"] == monitored {
			return l.API.Send(ctx, http.MethodPut, policiesPath(n)+"/"+monitored, p, nil)
		}
	}
	return nil
}

// policies are those of a namespace: the default denies, and of each form that
// people use.
func policies(n, monitoring int) (list []object) {
	pods := func(pairs ...string) object {
		match := object{}
		for i := 0; i < len(pairs); i += 2 {
			match[pairs[i]] = pairs[i+1]
		}
		return object{"matchLabels": match}
	}
	own := func(s object) object { return object{"podSelector": s} }
	port := func(protocol string, first any, last ...int) object {
		p := object{"protocol": protocol, "port": first}
		if last != nil {
			p["endPort"] = last[0]
		}
		return p
	}
	add := func(name string, about object, direction string, peers []object, ports ...object) {
		kind, end := "Ingress", "from"
		if direction == "egress" {
			kind, end = "Egress", "to"
		}
		rules := []object{}
		if peers != nil {
			rules = []object{{end: peers, "ports": ports}}
		}
		list = append(list, object{
			"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": object{"name": name},
			"spec": object{"podSelector": about, "policyTypes": []string{kind}, direction: rules},
		})
	}
	team := object{"namespaceSelector": pods("team", fmt.Sprint("t", n%10))}
	block := fmt.Sprintf("198.18.%d.0/24", n)
	add("nothing-in", pods(), "ingress", nil)
	add("nothing-out", pods(), "egress", nil)
	add("names", pods(), "egress", []object{{"namespaceSelector": pods(), "podSelector": pods("app", "a0")}}, port("UDP", 53), port("TCP", 53))
	add("web", pods("app", "a1"), "ingress", []object{own(pods("app", "a0")), own(pods("app", "a2"))}, port("TCP", "http"), port("TCP", pair.Port, pair.Port+9))
	add("data", pods("app", "a2"), "ingress", []object{team}, port("TCP", 5432))
	add("outside", pods("app", "a3"), "ingress", []object{{"ipBlock": object{"cidr": block, "except": []string{fmt.Sprintf("198.18.%d.16/28", n)}}}}, port("TCP", 8000, 8999))
	add("front", pods("tier", "front"), "egress", []object{own(pods("app", "a1"))}, port("TCP", pair.Port, pair.Port+9))
	add(monitored, pods(), "ingress", []object{{"namespaceSelector": pods("kubernetes.io/metadata.name", space(0)), "podSelector": pods("app", "a9")}}, port("TCP", monitoring))
	add("back", pods("tier", "back"), "egress", []object{{"ipBlock": object{"cidr": plane.Pods}}, {"ipBlock": object{"cidr": block}}}, port("TCP", 443))
	add("media", pods("tier", "back"), "ingress", []object{{"podSelector": object{"matchExpressions": []object{
		{"key": "app", "operator": "In", "values": []string{"a4", "a5"}}, {"key": "tier", "operator": "NotIn", "values": []string{"back"}},
	}}}}, port("UDP", 4000, 4999))
	return list
}
