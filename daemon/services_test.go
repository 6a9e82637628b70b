package daemon_test

import (
	"encoding/json"
	"net"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// services are served by the daemon, and are not once they are switched off.
func (m *machine) services() {
	t := m.t
	eth0, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	route := &netlink.Route{LinkIndex: eth0.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4(10, 96, 0, 0).To4(), Mask: net.CIDRMask(16, 32)}}
	if err := netlink.RouteAdd(route); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = netlink.RouteDel(route) }()
	pod, err := net.Listen("tcp", "172.30.0.11:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pod.Close()
	reached := func() bool {
		c, err := net.DialTimeout("tcp", "10.96.0.10:80", 300*time.Millisecond)
		if err != nil {
			return false
		}
		defer c.Close()
		return c.RemoteAddr().String() == "10.96.0.10:80"
	}
	m.api.Put("/api/v1/namespaces/shop/services", object{
		"apiVersion": "v1", "kind": "Service", "metadata": object{"name": "cart", "namespace": "shop", "uid": "c-1"},
		"spec": object{"type": "ClusterIP", "clusterIP": "10.96.0.10", "clusterIPs": []string{"10.96.0.10"}, "externalIPs": []string{"8.8.8.8"},
			"ports": []object{{"name": "http", "protocol": "TCP", "port": 80}}},
	})
	m.api.Put("/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices", object{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata":  object{"name": "cart-1", "namespace": "shop", "labels": object{"kubernetes.io/service-name": "cart"}},
		"ports":     []object{{"name": "http", "protocol": "TCP", "port": pod.Addr().(*net.TCPAddr).Port}},
		"endpoints": []object{{"addresses": []string{"172.30.0.11"}}},
	})
	stop := m.start()
	m.until("it is ready", func() bool { return m.report().Ready })
	m.until("the Service is served", reached)
	m.until("its owner is told", func() bool {
		for _, e := range m.api.List("/api/v1/namespaces/shop/events") {
			text, _ := json.Marshal(e)
			if strings.Contains(string(text), "ExternalAddressRefused") && strings.Contains(string(text), `"uid":"c-1"`) {
				return true
			}
		}
		return false
	})
	if code, body := get("http://127.0.0.1:10256/healthz"); code != 200 || !strings.Contains(body, `"nodeEligible":true`) {
		t.Errorf("healthz: %d %s", code, body)
	}
	leaving := m.node("10.244.1.0/24", "fd00:10:244:1::/64")
	leaving["spec"].(object)["taints"] = []object{{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}}
	m.api.Put(nodes, leaving)
	m.until("load balancers are told of the node's end", func() bool { code, _ := get("http://127.0.0.1:10256/healthz"); return code == 503 })
	if code, _ := get("http://127.0.0.1:10256/livez"); code != 200 {
		t.Errorf("livez: %d", code)
	}
	m.api.Put(nodes, m.node("10.244.1.0/24", "fd00:10:244:1::/64"))
	_, metrics := get("http://127.0.0.1:9410/metrics")
	for _, want := range []string{
		`poplin_ipam_addresses{family="ipv4",state="free"} 253`, `poplin_ipam_addresses{family="ipv4",state="taken"} 0`,
		"poplin_services_elements 3", "poplin_services_findings 1", "poplin_sync_proxy_rules_service_changes_pending 0",
		`poplin_sync_proxy_rules_no_local_endpoints_total{traffic_policy="external"} 0`, `poplin_api_requests_total{resource="servicecidrs",result="ok"}`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in the metrics:\n%s", want, metrics)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if !reached() {
		t.Error("the Service ended with the daemon")
	}

	m.configure("services: {enabled: false}\n")
	stop = m.start()
	m.until("it is ready", func() bool { return m.report().Ready })
	if reached() {
		t.Error("switched off, and served")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	m.configure("")
}
