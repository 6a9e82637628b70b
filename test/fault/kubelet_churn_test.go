//go:build e2e

package fault

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/soak"
)

// churn is a Deployment whose pods are thrown away and made again.
const churn = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: churn}
spec:
  replicas: %d
  selector: {matchLabels: {app: churn}}
  template:
    metadata: {labels: {app: churn}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
        - name: pause
          image: registry.k8s.io/e2e-test-images/agnhost:2.63.0
          imagePullPolicy: IfNotPresent
          args: [pause]
`

// Pods deleted and made again by the kubelet leave no address, link or route.
func TestKubeletChurnLeavesNothing(t *testing.T) {
	const atOnce = 10
	total := soak.Times(500)
	c := shared(t)
	asManyAsPods(t, c) // those of the test before may still be on their way out
	before := attachments(t, c)
	apply(t, c, fmt.Sprintf(churn, atOnce))
	run(t, c, "rollout", "status", "deployment/churn", "--timeout=90s")
	if with := attachments(t, c); strings.Count(with, "link") < strings.Count(before, "link")+atOnce {
		t.Fatalf("the pods' links are not seen, so a leak would not be either:\n%s", with)
	}
	for made := atOnce; made < total; made += atOnce {
		run(t, c, "delete", "pods", "-l", "app=churn")
		run(t, c, "rollout", "status", "deployment/churn", "--timeout=90s")
	}
	run(t, c, "delete", "deployment", "churn")
	deadline := time.Now().Add(time.Minute)
	for {
		after := attachments(t, c)
		if after == before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %d pods there is\n%swhere there was\n%s", total, after, before)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// attachments lists what a pod's attachment may leave on the nodes.
func attachments(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	var all strings.Builder
	for _, n := range c.Nodes() {
		out, err := c.Exec(t.Context(), n, "sh", "-c", `
			ls /var/lib/cni/networks/poplin | grep -v -e lock -e last_reserved | sed 's/^/address /' || true
			ip -o link show group 0x706c | sed 's/^[0-9]*: \([^:@]*\).*/link \1/'
			ip route show proto 157 | grep plw | sed 's/^/route /' || true
			ip -6 route show proto 157 | grep plw | sed 's/^/route /' || true
			ip neigh show nud permanent | grep plw | sed 's/^/neighbour /' || true`)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s\n%s", n, out)
	}
	return all.String()
}
