package way

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/web"
)

func podAt(name, node, ip string) object.Pod {
	p := object.Pod{Meta: object.Meta{Namespace: "blue", Name: name}}
	p.Spec.NodeName, p.Status.Phase, p.Status.PodIPs = node, "Running", []object.IP{{IP: ip}}
	p.Status.Conditions = []object.Condition{{Type: "Ready", Status: "True"}}
	return p
}

// serviceTo is a Service with endpoints, which the input gets.
func serviceTo(in *Input, name, ip string, endpoints ...string) *object.Service {
	s := &object.Service{Meta: object.Meta{Namespace: "blue", Name: name}}
	s.Spec.ClusterIPs, s.Spec.Ports = []string{ip}, []object.ServicePort{{Port: 80}}
	x := object.Slice{Meta: object.Meta{Namespace: "blue", Name: name, Labels: map[string]string{"kubernetes.io/service-name": name}}}
	x.Ports = append(x.Ports, struct {
		Name     string `json:"name"`
		Protocol string `json:"protocol"`
		Port     uint16 `json:"port"`
	}{Port: 8080})
	for _, e := range endpoints {
		x.Endpoints = append(x.Endpoints, object.Endpoint{Addresses: []string{e}})
	}
	in.Objects.Slices = append(in.Objects.Slices, x)
	return s
}

func TestSections(t *testing.T) {
	client, one, two := podAt("client", "n1", "10.244.1.5"), podAt("web-1", "n1", "10.244.1.7"), podAt("web-2", "n2", "10.244.2.7")
	proxy := podAt("proxy", "n2", "10.244.2.9")
	n1 := object.Node{Meta: object.Meta{Name: "n1"}}
	n1.Status.Addresses = append(n1.Status.Addresses, struct {
		Type    string `json:"type"`
		Address string `json:"address"`
	}{"InternalIP", "192.0.2.1"})
	a := netip.MustParseAddr
	to := func(s *object.Service) Target {
		return Target{Service: s, Addrs: s.ClusterIPs(), Port: 80, Proto: service.TCP}
	}
	fromClient := End{Pod: &client, Node: "n1", Addrs: client.Addresses()}
	backend := web.BackendID{Service: cluster.ObjectName{Namespace: "blue", Name: "web"}, Port: "80"}
	for name, row := range map[string]struct {
		ask  func(*Input)
		want string
	}{
		"a Service": {func(in *Input) { in.To = to(serviceTo(in, "web", "10.96.0.9", "10.244.1.7", "10.244.2.7")) },
			"pod/blue/client>service/blue/web service/blue/web>pod/blue/web-1 service/blue/web>pod/blue/web-2"},
		"a Service without endpoints": {func(in *Input) { in.To = to(serviceTo(in, "web", "10.96.0.9")) }, "pod/blue/client>service/blue/web"},
		"a Service of an address": {func(in *Input) { in.To = to(serviceTo(in, "far", "10.96.0.9", "203.0.113.1")) },
			"pod/blue/client>service/blue/far service/blue/far>address/203.0.113.1"},
		"a pod":  {func(in *Input) { in.To = Target{Pod: &two, Addrs: two.Addresses(), Port: 8080} }, "pod/blue/client>pod/blue/web-2"},
		"a node": {func(in *Input) { in.To = Target{Addrs: []netip.Addr{a("192.0.2.1")}, Port: 22} }, "pod/blue/client>node/n1"},
		"from outside": {func(in *Input) {
			in.From = End{}
			in.To = Target{Addrs: []netip.Addr{a("192.0.2.1")}, Port: 22}
		}, "external>node/n1"},
		"nothing": {func(in *Input) { in.To = Target{Missing: "there is none"} }, ""},
		"an Ingress": {func(in *Input) {
			in.From = End{}
			in.To = to(serviceTo(in, "proxy", "10.96.0.1", "10.244.2.9"))
			b := to(serviceTo(in, "web", "10.96.0.9", "10.244.1.7"))
			in.Behind = &b
			in.Web = &Web{Host: "shop.example.com", Path: "/", Replicas: []object.Pod{proxy}, Program: &web.Program{
				Default:  &web.Route{Ingress: cluster.ObjectName{Namespace: "blue", Name: "shop"}, Backend: backend, Options: &web.Options{}},
				Backends: map[web.BackendID]*web.Backend{backend: {Ready: []netip.AddrPort{netip.MustParseAddrPort("10.244.1.7:8080")}}},
			}}
		}, "external>service/blue/proxy service/blue/proxy>pod/blue/proxy pod/blue/proxy>ingress/blue/shop ingress/blue/shop>service/blue/web service/blue/web>pod/blue/web-1"},
	} {
		in := &Input{From: fromClient}
		in.Objects.Pods, in.Objects.Nodes = []object.Pod{client, one, two, proxy}, []object.Node{n1}
		row.ask(in)
		var got []string
		for _, s := range Sections(in) {
			got = append(got, fmt.Sprint(s.From, ">", s.To))
		}
		if text := strings.Join(got, " "); text != row.want {
			t.Errorf("%s: %s\nwant %s", name, text, row.want)
		}
	}
}
