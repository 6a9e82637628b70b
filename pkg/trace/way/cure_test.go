package way

import "testing"

// TestCures: what a person is told to type is a command that there is.
func TestCures(t *testing.T) {
	for got, want := range map[string]string{
		Logs("worker-1"):    "kubectl -n poplin-system logs daemonset/poplind --all-pods --prefix | grep worker-1",
		Restart("worker-1"): "kubectl -n poplin-system delete pod -l app.kubernetes.io/name=poplind --field-selector spec.nodeName=worker-1",
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// TestCuresElsewhere: where Poplin's pods are in another namespace, cures say so.
func TestCuresElsewhere(t *testing.T) {
	r := Report{Cure: Logs("a"), Hops: []Hop{{Cure: Restart("a")}, {Cure: "kubectl -n shop edit service web"}}}
	r.At("network")
	want := "kubectl -n network logs daemonset/poplind --all-pods --prefix | grep a"
	if r.Cure != want || r.Hops[0].Cure != "kubectl -n network delete pod -l app.kubernetes.io/name=poplind --field-selector spec.nodeName=a" || r.Hops[1].Cure != "kubectl -n shop edit service web" {
		t.Errorf("%+v", r)
	}
}
