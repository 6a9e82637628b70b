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
