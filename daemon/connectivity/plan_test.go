package connectivity

import (
	"fmt"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/apply/echo"
	"poplin.dev/poplin/pkg/cluster/object"
)

func stage() scene {
	pod := func(name, node string, i int) (p object.Pod) {
		p.Name, p.Spec.NodeName = name, node
		p.Status.PodIPs = []object.IP{{IP: fmt.Sprintf("10.244.%d.5", i)}, {IP: fmt.Sprintf("fd00:10:244:%d::5", i)}}
		return p
	}
	node := func(name, addr string) (n object.Node) {
		n.Name = name
		n.Status.Addresses = append(n.Status.Addresses, struct {
			Type    string `json:"type"`
			Address string `json:"address"`
		}{"InternalIP", addr})
		return n
	}
	s := scene{
		namespace: "test", pods: []object.Pod{pod("echo-1", "a", 1), pod("echo-2", "b", 2)},
		guarded: pod(guarded, "a", 1), friend: pod(friend, "b", 2), nodes: []object.Node{node("a", "172.30.0.11"), node("b", "172.30.0.12")},
	}
	s.service.Spec.ClusterIPs = []string{"10.96.0.9"} // no IPv6: its node ports have none either
	s.service.Spec.Ports = []object.ServicePort{{Port: 80, NodePort: 30080}}
	return s
}

func TestPlan(t *testing.T) {
	s := stage()
	count := map[string]int{}
	for _, c := range s.plan() {
		count[c.Kind]++
		if c.Denied != (c.Kind == "policy, denied") {
			t.Errorf("%+v", c)
		}
		if from, to, ok := c.ends(); ok && (from != "pod/echo-1" && from != "pod/echo-2" && from != "pod/friend" || strings.HasSuffix(to, "/udp") != c.Question.UDP) {
			t.Errorf("%+v is traced from %s to %s", c, from, to)
		}
	}
	for kind, want := range map[string]int{
		"pod IPv4": 4, "pod IPv6": 4, "pod IPv4, large": 4, "pod IPv6, UDP": 4,
		"Service IPv4": 2, "Service IPv6": 0, "DNS": 2, "node port IPv4": 4, "node port IPv6": 0, "Ingress IPv4": 0,
		"policy, allowed": 2, "policy, denied": 4,
	} {
		if count[kind] != want {
			t.Errorf("%s: %d checks, want %d", kind, count[kind], want)
		}
	}
	s.edge = s.service.ClusterIPs()
	if list := s.plan(); !strings.Contains(fmt.Sprint(list), host) {
		t.Error("a proxy is there, and nobody asks it")
	}
}

func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		denied  bool
		answer  echo.Answer
		problem string
	}{
		{false, echo.Answer{Name: "echo-1"}, ""},
		{false, echo.Answer{Problem: "timeout"}, "timeout"},
		{true, echo.Answer{Problem: "timeout"}, ""},
		{true, echo.Answer{Name: "guarded"}, "a policy denies it"},
	} {
		c := Check{Kind: "x", From: "a", To: "b", Denied: tt.denied, Problem: "of before"}
		c.judge(tt.answer)
		if (c.Problem == "") != (tt.problem == "") || !strings.Contains(c.Problem, tt.problem) {
			t.Errorf("%+v: %q", tt, c.Problem)
		}
	}
}

func TestText(t *testing.T) {
	var b strings.Builder
	list := []Check{{Kind: "pod IPv4", From: "p", To: "q"}, {Kind: "pod IPv4", From: "q", To: "p", Problem: "timeout", Trace: "underlay"}, {Kind: "DNS"}}
	if err := Text(&b, list); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(strings.Fields(b.String()), " ")
	if want := "FAILED 1 of 2 pod IPv4 ok 1 of 1 DNS pod IPv4: q -> p (): timeout trace: underlay"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
