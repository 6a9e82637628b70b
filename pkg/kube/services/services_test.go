package services_test

import (
	"context"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/kube"
	"poplin.dev/poplin/pkg/kube/kubetest"
	"poplin.dev/poplin/pkg/kube/services"
)

const (
	servicesAt = "/api/v1/namespaces/shop/services"
	slicesAt   = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"
	rangesAt   = "/apis/networking.k8s.io/v1/servicecidrs"
)

type object = kubetest.Object

// told are the changes a subscriber heard of.
type told struct {
	mu   sync.Mutex
	keys map[service.Key]int
	all  int
}

func (o *told) changed(_ string, keys []service.Key) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(keys) == 0 {
		o.all++
	}
	for _, k := range keys {
		o.keys[k]++
	}
}

func (o *told) of(k service.Key) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.keys[k]
}

func view(t *testing.T, s *kubetest.Server) (*services.View, *told) {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	c, err := kube.New(kube.Config{NodeName: "worker-1", Endpoints: []string{s.URL()}, Credentials: s.Credentials(), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	v, err := c.Services()
	if err != nil {
		t.Fatal(err)
	}
	heard := &told{keys: map[service.Key]int{}}
	v.Subscribe(heard.changed)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = v.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return v, heard
}

func web() object {
	return object{
		"apiVersion": "v1", "kind": "Service",
		"metadata": object{"name": "web", "namespace": "shop", "uid": "u-1", "creationTimestamp": "2026-01-02T03:04:05Z",
			"annotations":   object{"a": "large annotation that nobody needs"},
			"managedFields": []object{{"manager": "kubectl", "operation": "Update", "fieldsV1": object{"f:spec": object{}}}}},
		"spec": object{
			"type": "LoadBalancer", "clusterIP": "10.96.0.10", "clusterIPs": []string{"10.96.0.10", "fd00:96::10"},
			"selector": object{"app": "web"}, "externalIPs": []string{"203.0.113.1", "nonsense"},
			"loadBalancerSourceRanges": []string{" 192.0.2.0/24 ", "2001:db8::/32"},
			"sessionAffinity":          "ClientIP", "sessionAffinityConfig": object{"clientIP": object{"timeoutSeconds": 90}},
			"externalTrafficPolicy": "Local", "internalTrafficPolicy": "Local", "healthCheckNodePort": 32001,
			"ports": []object{
				{"name": "http", "protocol": "TCP", "port": 80, "targetPort": "web", "nodePort": 30080},
				{"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 5353},
				{"name": "sig", "protocol": "SCTP", "port": 132},
			},
		},
		"status": object{"loadBalancer": object{"ingress": []object{
			{"ip": "198.51.100.7"}, {"ip": "198.51.100.8", "ipMode": "Proxy"}, {"hostname": "lb.example"},
		}}},
	}
}

func slice(name, of string) object {
	return object{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata": object{"name": name, "namespace": "shop", "labels": object{"kubernetes.io/service-name": of},
			"annotations": object{"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-02T03:04:05.5Z"}},
		"ports": []object{{"name": "http", "protocol": "TCP", "port": 8080}, {"protocol": "UDP", "port": 9}},
		"endpoints": []object{
			{"addresses": []string{"10.244.1.2", "10.244.1.9"}, "nodeName": "worker-1", "zone": "east",
				"conditions": object{"ready": true, "serving": true, "terminating": false},
				"hints":      object{"forZones": []object{{"name": "east"}}, "forNodes": []object{{"name": "worker-1"}}},
				"targetRef":  object{"kind": "Pod", "name": "web-1"}},
			{"addresses": []string{"10.244.2.2"}, "conditions": object{"ready": false, "serving": true, "terminating": true}},
			{"addresses": []string{"10.244.3.2"}},
		},
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// TestView reads objects that the types of k8s.io/api have written.
func TestView(t *testing.T) {
	s := kubetest.New(t)
	s.Put(servicesAt, web())
	s.Put(slicesAt, slice("web-x", "web"))
	s.Put(rangesAt, object{"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": object{"name": "kubernetes"},
		"spec": object{"cidrs": []string{"10.96.0.0/16", "fd00:96::/112"}}})
	v, heard := view(t, s)
	s.Until("the view is complete", v.Complete)

	key := service.Key{Namespace: "shop", Name: "web"}
	got, _ := v.Service(key)
	want := service.Service{
		Key: key, Type: service.LoadBalancer, Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		ClusterIPs: []netip.Addr{addr("10.96.0.10"), addr("fd00:96::10")}, ExternalIPs: []netip.Addr{addr("203.0.113.1"), {}},
		Ingress:      []service.Ingress{{Addr: addr("198.51.100.7")}, {Addr: addr("198.51.100.8"), Proxy: true}},
		SourceRanges: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		Ports: []service.Port{
			{Name: "http", Protocol: service.TCP, Port: 80, NodePort: 30080},
			{Name: "dns", Protocol: service.UDP, Port: 53}, {Name: "sig", Protocol: service.SCTP, Port: 132},
		},
		InternalLocal: true, ExternalLocal: true, Affinity: 90 * time.Second, HealthCheckNodePort: 32001,
	}
	got.Created = got.Created.UTC()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Service\n%+v\nwant\n%+v", got, want)
	}
	wantSlices := []service.Slice{{
		Key: service.Key{Namespace: "shop", Name: "web-x"}, Service: "web", Family: 4,
		Ports: []service.SlicePort{{Name: "http", Protocol: service.TCP, Port: 8080}},
		Endpoints: []service.Endpoint{
			{Addr: addr("10.244.1.2"), Node: "worker-1", Ready: true, Serving: true, ForZones: []string{"east"}, ForNodes: []string{"worker-1"}},
			{Addr: addr("10.244.2.2"), Serving: true, Terminating: true},
			{Addr: addr("10.244.3.2"), Ready: true, Serving: true},
		},
	}}
	if got := v.Slices(key); !reflect.DeepEqual(got, wantSlices) {
		t.Errorf("slices\n%+v\nwant\n%+v", got, wantSlices)
	}
	if got := v.Ranges(); len(got) != 2 || got[0] != netip.MustParsePrefix("10.96.0.0/16") {
		t.Errorf("ranges %v", got)
	}
	if r := v.Reference(key, false); r.UID != "u-1" || r.Kind != "Service" {
		t.Errorf("reference %+v", r)
	}
	s.Until("somebody is told that the view is complete", func() bool {
		heard.mu.Lock()
		defer heard.mu.Unlock()
		return heard.all > 0
	})
	if !v.Triggered(key).IsZero() {
		t.Error("what happened before the start counts")
	}
}

// TestChanges toggles what has a Service come and go.
func TestChanges(t *testing.T) {
	s := kubetest.New(t)
	v, heard := view(t, s)
	s.Until("the view is complete", v.Complete)
	key := service.Key{Namespace: "shop", Name: "web"}
	here := func(want bool) func() bool {
		return func() bool { _, found := v.Service(key); return found == want }
	}
	s.Put(servicesAt, web())
	s.Until("it is there", here(true))
	o := web()
	o["metadata"].(object)["labels"] = object{"service.kubernetes.io/service-proxy-name": "another"}
	s.Put(servicesAt, o)
	s.Until("another proxy has it", here(false))
	s.Put(servicesAt, web())
	s.Until("it is back", here(true))
	o = web()
	o["spec"].(object)["clusterIP"] = "None"
	s.Put(servicesAt, o)
	s.Until("it is headless", here(false))
	s.Put(servicesAt, web())
	s.Until("it is back", here(true))

	s.Put(slicesAt, slice("web-x", "web"))
	s.Until("the slice is there", func() bool { return len(v.Slices(key)) == 1 })
	if want := time.Date(2026, 1, 2, 3, 4, 5, 5e8, time.UTC); !v.Triggered(key).Equal(want) || !v.Triggered(key).IsZero() {
		t.Error("the cause of the change is told once")
	}
	before, other := heard.of(key), service.Key{Namespace: "shop", Name: "other"}
	s.Put(slicesAt, slice("web-x", "other"))
	s.Until("it moved", func() bool { return len(v.Slices(key)) == 0 && len(v.Slices(other)) == 1 })
	if heard.of(key) == before || heard.of(other) == 0 {
		t.Error("both Services have changed")
	}
	o = slice("web-x", "other")
	o["metadata"].(object)["labels"].(object)["service.kubernetes.io/headless"] = ""
	s.Put(slicesAt, o)
	s.Until("it is headless", func() bool { return len(v.Slices(other)) == 0 })

	s.Put(slicesAt, slice("web-x", "web"))
	s.Until("it is back", func() bool { return len(v.Slices(key)) == 1 })
	s.Put(slicesAt, slice("web-y", "web"))
	s.Until("there are two", func() bool { return len(v.Slices(key)) == 2 })
	s.Expire()
	s.Delete(slicesAt + "/web-x")
	s.Until("a list finds what is gone", func() bool {
		return slices.ContainsFunc(v.Slices(key), func(s service.Slice) bool { return s.Name == "web-y" }) && len(v.Slices(key)) == 1
	})
}
