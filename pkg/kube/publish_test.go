package kube_test

import (
	"encoding/json"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/kube"
	"poplin.dev/poplin/pkg/kube/kubetest"
)

func TestPublish(t *testing.T) {
	s := kubetest.New(t)
	s.Put(nodes, node("worker-1", []string{"10.244.1.0/24"}))
	c := client(t, s, nil)
	<-c.Ready()
	writes := func() int { return len(s.Requests("PUT /apis/poplin")) + len(s.Requests("POST /apis/poplin")) }
	publish := func(mtu int) {
		t.Helper()
		n := peer(1)
		n.MTU = mtu
		if err := c.Publish(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	seen := func(mtu int) func() bool {
		return func() bool { list, _ := c.Nodes(); return len(list) == 1 && list[0].MTU == mtu }
	}

	publish(1450)
	s.Until("own object is seen", seen(1450))
	o := s.Get(networks + "/worker-1")
	text, _ := json.Marshal(o)
	for _, want := range []string{
		`"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"worker-1","uid":"uid-worker-1"}]`,
		`"spec":{"mtu":1450,"podCIDRs":["10.244.1.0/24","fd00:10:244:1::/64"],"vtep":{"address":"172.30.0.11","mac":"` + peer(1).VTEP.MAC.String() + `"}}`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("got %s\nwant %s in it", text, want)
		}
	}

	// As it should be: nothing is sent at all.
	requests := len(s.Requests(""))
	for range 5 {
		publish(1450)
	}
	if n := len(s.Requests("")); n != requests {
		t.Errorf("%d requests to publish what is published", n-requests)
	}

	publish(1400)
	s.Until("a change is seen", seen(1400))
	if n := writes(); n != 2 {
		t.Errorf("%d writes, want 2", n)
	}

	// Somebody deletes it, or spoils it, or adds a label.
	s.Delete(networks + "/worker-1")
	s.Until("own object is gone", func() bool { return known(c) == "" })
	publish(1400)
	s.Until("own object is back", seen(1400))
	o = network(peer(1))
	o["metadata"].(object)["labels"] = object{"keep": "me"}
	s.Put(networks, o)
	s.Until("it was changed", seen(1450))
	publish(1400)
	s.Until("it is repaired", seen(1400))
	if text, _ := json.Marshal(s.Get(networks + "/worker-1")); !strings.Contains(string(text), `"keep":"me"`) || !strings.Contains(string(text), "uid-worker-1") {
		t.Errorf("label or owner is lost: %s", text)
	}
}

func TestPublishRefuses(t *testing.T) {
	s := kubetest.New(t)
	c := client(t, s, nil)
	if err := c.Publish(t.Context(), peer(1)); err == nil || !strings.Contains(err.Error(), "was not read yet") {
		t.Errorf("no Node: %v", err)
	}
	s.Put(nodes, node("worker-1", nil))
	<-c.Ready()
	if err := c.Publish(t.Context(), peer(2)); err == nil || !strings.Contains(err.Error(), "this is node worker-1") {
		t.Errorf("another's: %v", err)
	}
	n := peer(1)
	n.MTU = 3
	if err := c.Publish(t.Context(), n); err == nil || !strings.Contains(err.Error(), "mtu: 3") {
		t.Errorf("invalid: %v", err)
	}
	if w := append(s.Requests("PUT"), s.Requests("POST")...); len(w) > 0 {
		t.Errorf("written all the same: %v", w)
	}
}

func TestNetworkAvailable(t *testing.T) {
	s := kubetest.New(t)
	s.Put(nodes, node("worker-1", nil, object{"type": "Ready", "status": "True"}))
	c := client(t, s, nil)
	<-c.Ready()
	announce := func() {
		t.Helper()
		if err := c.NetworkAvailable(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	announce()
	if w := s.Requests("PATCH"); len(w) > 0 {
		t.Errorf("no cloud set the condition, but: %v", w)
	}
	// The ranges change with it only so that the test sees that it was read.
	s.Put(nodes, node("worker-1", []string{"10.244.1.0/24"}, object{"type": "NetworkUnavailable", "status": "True"}, object{"type": "Ready", "status": "True"}))
	s.Until("it is read", func() bool { self, _ := c.Self(); return len(self.PodCIDRs) == 1 })
	announce()
	text, _ := json.Marshal(s.Get(nodes + "/worker-1")["status"])
	for _, want := range []string{`"reason":"PoplinIsUp","status":"False","type":"NetworkUnavailable"`, `"type":"Ready"`, `"172.30.0.11"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("got %s\nwant %s in it", text, want)
		}
	}
	if w := s.Requests("PATCH"); len(w) != 1 || w[0] != "PATCH /api/v1/nodes/worker-1/status" {
		t.Errorf("requests: %v", w)
	}
}

func TestOverview(t *testing.T) {
	s := kubetest.New(t)
	s.Put(nodes, node("worker-1", []string{"10.244.1.0/24"}, object{"type": "Ready", "status": "True"}))
	s.Put(nodes, node("worker-2", []string{"10.244.2.0/24"}))
	s.Put(nodes, node("worker-3", nil))
	s.Put(networks, network(peer(1)))
	s.Put(networks, network(peer(4)))
	c, err := kube.New(kube.Config{Endpoints: []string{s.URL()}, Credentials: s.Credentials()})
	if err != nil {
		t.Fatal(err)
	}
	list, err := c.Overview(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []struct{ name, problem string }{
		{"worker-1", ""}, {"worker-2", "has not published"}, {"worker-3", "no spec.podCIDRs"}, {"worker-4", "no Node of this name"},
	}
	if len(list) != len(want) {
		t.Fatalf("got %+v", list)
	}
	for i, w := range want {
		if list[i].Name != w.name || !strings.Contains(list[i].Problem, w.problem) || (w.problem == "") != (list[i].Problem == "") {
			t.Errorf("got %+v, want %+v", list[i], w)
		}
	}
	if !list[0].Ready || list[1].Ready || list[0].MTU != 1450 {
		t.Errorf("got %+v", list[:2])
	}
}
