package overview

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"poplin.dev/poplin/daemon/status"
	"poplin.dev/poplin/pkg/kube"
	"poplin.dev/poplin/pkg/kube/fleet"
)

func TestOverview(t *testing.T) {
	says := func(change func(*status.Report)) []byte {
		r := status.Report{Version: "1.2.3", Peers: 3, Ready: true, Tasks: []status.Task{{Name: "overlay"}, {Name: "services"}}}
		change(&r)
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	published := func(name string) kube.NodeStatus {
		return kube.NodeStatus{Name: name, Exists: true, Ready: true, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}, VTEP: netip.MustParseAddr("172.30.0.11"), MAC: "02:00:00:00:00:01", MTU: 1450}
	}
	bare := kube.NodeStatus{Name: "e", Problem: "poplind has not published a NodeNetwork"}
	nodes := []kube.NodeStatus{published("a"), published("b"), published("c"), published("d"), bare}
	answers := []fleet.Answer{
		{Node: "a", Out: says(func(*status.Report) {})},
		{Node: "b", Out: says(func(r *status.Report) {
			r.Tasks[1].Waiting = "the first pass over the kernel"
			r.Silent, r.Refused = []string{"d"}, []status.Refusal{{Node: "e", Reason: "its range overlaps"}}
		})},
		{Node: "c", Out: []byte("not JSON")},
		{Node: "d", Err: errors.New("no answer within 5s")},
		{Node: "e", Err: errors.New("no poplind pod on this node")},
	}
	list := Join(nodes, answers)
	if !Well(list[:1]) || Well(list) {
		t.Error("a is well, the others are not")
	}
	var b strings.Builder
	if err := Text(&b, list); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(b.String()), " ")
	for _, want := range []string{
		"a true 1.2.3 all 2 ok 3/3 10.244.1.0/24 172.30.0.11 02:00:00:00:00:01 1450",
		"b true 1.2.3 SERVICES wait 2/4", "d true - - - 10.244.1.0/24", "e false - - - - - - -",
		"b: services: waits for the first pass over the kernel", "b: does not send to e: its range overlaps",
		"b: no answer through the pod network of d", "c: daemon: its answer is not understood", "d: daemon: no answer within 5s",
		"e: poplind has not published a NodeNetwork", "e: the Node is not Ready", "e: daemon: no poplind pod",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(text, "a: ") {
		t.Errorf("a has no problem:\n%s", b.String())
	}
}
