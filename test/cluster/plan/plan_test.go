package plan

import "testing"

func TestPlan(t *testing.T) {
	p := New("poplin", 3, "dual", 2)
	for got, want := range map[string]string{
		p.Server():                       "https://172.30.0.11:6443",
		Joined(p.NodeAddresses(0)):       "172.30.0.11,fd00:30::11",
		Joined(p.NodeAddresses(1)):       "172.30.1.12,fd00:30:0:1::12",
		Joined(p.Hosts[1].Gateways):      "172.30.1.1,fd00:30:0:1::1",
		Joined(p.DNS()):                  "10.96.0.10,fd00:10:96::a",
		Joined(p.LAN.Forbidden):          "10.244.0.0/16,fd00:10:244::/56",
		p.Hosts[2].Routes[1].To.String(): "fd00:30:0:1::/64",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if p := New("poplin", 3, "ipv6", 0); p.Server() != "https://[fd00:30::11]:6443" || p.Hosts[0].Routes != nil || p.Families != 1 {
		t.Errorf("ipv6: %+v", p)
	}
}

func TestOursIsExact(t *testing.T) {
	for namespace, want := range map[string]bool{
		"a-worker-1": true, "a-worker-12": true, "a-underlay": true, "a-router": true,
		"a-b-worker-1": false, "a-worker-1-worker-1": false, "a-worker-": false, "a": false, "ab-router": false,
	} {
		if got := Ours("a", namespace); got != want {
			t.Errorf("Ours(a, %s) = %v", namespace, got)
		}
	}
}
