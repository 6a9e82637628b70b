//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/live"
)

// explained: what `poplinctl policy explain` says of a policy is what the kernel
// does, and a node that logs drops has the policy's name in the log and counts
// them for it.
func (m *mesh) explained(t *testing.T) {
	configure(t, m.c, "worker-2", object{"policy": object{"logDrops": true}})
	m.enforce(t, "server", from(byRole("friend")))
	for _, row := range []struct{ from, seen, verdict, rule string }{
		{"friend", "friend", "allowed", "ingress of pod default/mesh-server: allowed by NetworkPolicy default/mesh, spec.ingress[0]"},
		{"stranger", "-", "denied", "ingress of pod default/mesh-server: denied, isolated by NetworkPolicy default/mesh; none of their rules allows it"},
	} {
		for family := range 2 {
			await.Success(t, 20*time.Second, func() error {
				if got := m.sees(t.Context(), m.places[row.from], m.addrs["server"][family]); got != row.seen {
					return fmt.Errorf("%s is seen as %s, want %s", row.from, got, row.seen)
				}
				return nil
			})
		}
		ask := live.Poplinctl(t.Context(), t, m.c, "policy", "explain", "-from", "default/mesh-"+row.from, "-to", "default/mesh-server:8080")
		out, err := ask.CombinedOutput()
		text := string(out)
		if (err == nil) != (row.verdict == "allowed") || !strings.Contains(text, "port 8080/tcp: "+row.verdict) || strings.Count(text, row.rule) != 2 {
			t.Errorf("%s: %v\n%swant %s in both families, as %q", row.from, err, text, row.verdict, row.rule)
		}
	}
	await.Success(t, 20*time.Second, func() error {
		out, err := m.c.Exec(t.Context(), "worker-2", "curl", "-s", "-m", "5", "http://127.0.0.1:9410/metrics")
		if want := `poplin_policy_logged_drops_total{direction="ingress",kind="NetworkPolicy",name="mesh",namespace="default"}`; err != nil || !strings.Contains(string(out), want) {
			return fmt.Errorf("no %s on worker-2: %v", want, err)
		}
		daemon := m.kubectl(t, "-n", "poplin-system", "get", "pods", "-l", "app.kubernetes.io/name=poplind",
			"--field-selector=spec.nodeName=worker-2", "-o", "jsonpath={.items[0].metadata.name}")
		log := m.kubectl(t, "-n", "poplin-system", "logs", daemon, "-c", "poplind")
		for line := range strings.Lines(log) {
			if strings.Contains(line, "a policy drops packets") && strings.Contains(line, "pod=default/mesh-server") &&
				strings.Contains(line, "peer=default/mesh-stranger") && strings.Contains(line, `policies="NetworkPolicy default/mesh"`) {
				return nil
			}
		}
		return fmt.Errorf("worker-2 does not log what the policy drops:\n%s", log)
	})
}
