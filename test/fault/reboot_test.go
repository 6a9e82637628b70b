//go:build e2e

package fault

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/soak"
)

// many are pods of one node.
const many = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: %d
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec:
      nodeSelector: {kubernetes.io/hostname: %s}
      tolerations: [{operator: Exists}]
      terminationGracePeriodSeconds: 0
      containers:
        - {name: idle, image: "registry.k8s.io/pause:3.10.2", imagePullPolicy: IfNotPresent}
`

// kubeletPods is how many pods a kubelet takes, the daemon's among them.
const kubeletPods = 110

// TestPodsAfterPowerCycle: a node full of pods is switched off and on. All come
// again, no address twice, and none of those before is kept.
func TestPodsAfterPowerCycle(t *testing.T) {
	c := shared(t)
	var there struct{ Items []struct{} }
	if err := json.Unmarshal([]byte(run(t, c, "get", "pods", "-A", "-o", "json", "--field-selector=spec.nodeName="+peer)), &there); err != nil {
		t.Fatal(err)
	}
	n := min(soak.Times(kubeletPods), kubeletPods-len(there.Items))
	apply(t, c, fmt.Sprintf(many, n, peer))
	allThere(t, c, n)
	if err := c.StopNode(t.Context(), peer); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := c.StartNode(t.Context(), peer); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	ready(t, c, peer)
	// The API server has the old addresses until the kubelet has new ones.
	asManyAsPods(t, c)
	allThere(t, c, n)
	t.Logf("%d pods are there again %v after the node was switched on", n, time.Since(began).Round(100*time.Millisecond))
	run(t, c, "delete", "deployment", "many")
	asManyAsPods(t, c)
}

// asManyAsPods waits until the nodes hold just what the cluster's pods need: a
// link each, and an address, a route and a neighbour in each family.
func asManyAsPods(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	await.Success(t, 5*time.Minute, func() error {
		var list struct {
			Items []struct {
				Spec   struct{ HostNetwork bool }
				Status struct{ Phase string }
			}
		}
		if err := json.Unmarshal([]byte(run(t, c, "get", "pods", "-A", "-o", "json")), &list); err != nil {
			return err
		}
		n := 0
		for _, p := range list.Items {
			if !p.Spec.HostNetwork && p.Status.Phase == "Running" {
				n++
			}
		}
		want := map[string]int{"link": n, "address": 2 * n, "route": 2 * n, "neighbour": 2 * n}
		now := count(attachments(t, c))
		for kind := range want {
			if now[kind] != want[kind] {
				return fmt.Errorf("the nodes hold %v, %d pods need %v", now, n, want)
			}
		}
		return nil
	})
}

// count is how many links, addresses, routes and neighbours there are. Which,
// is another matter: every pod of the node was made anew.
func count(attachments string) map[string]int {
	n := map[string]int{}
	for line := range strings.Lines(attachments) {
		kind, _, _ := strings.Cut(line, " ")
		n[kind]++
	}
	return n
}

// allThere waits until pods have addresses of both families that the node has
// reserved, each for one pod.
func allThere(t testing.TB, c *cluster.Cluster, n int) {
	t.Helper()
	await.Success(t, 5*time.Minute, func() error {
		var list struct {
			Items []struct {
				Metadata struct{ Name string }
				Status   struct {
					PodIPs     []struct{ IP netip.Addr }
					Conditions []struct{ Type, Status string }
				}
			}
		}
		if err := json.Unmarshal([]byte(run(t, c, "get", "pods", "-l", "app=many", "-o", "json")), &list); err != nil {
			return err
		}
		reserved := on(t, c, peer, "sh", "-c", "ls /var/lib/cni/networks/poplin 2>/dev/null || true") // not there before the first pod
		has := map[netip.Addr]string{}
		for _, p := range list.Items {
			for _, condition := range p.Status.Conditions {
				if condition.Type == "Ready" && condition.Status != "True" {
					return fmt.Errorf("pod %s is not ready", p.Metadata.Name)
				}
			}
			for _, ip := range p.Status.PodIPs {
				if other := has[ip.IP]; other != "" {
					return fmt.Errorf("%s and %s have %s", other, p.Metadata.Name, ip.IP)
				}
				if !strings.Contains("\n"+reserved, "\n"+ip.IP.String()+"\n") {
					return fmt.Errorf("%s has %s, which is not reserved", p.Metadata.Name, ip.IP)
				}
				has[ip.IP] = p.Metadata.Name
			}
		}
		if len(list.Items) != n || len(has) != 2*n {
			return fmt.Errorf("%d pods with %d addresses, want %d", len(list.Items), len(has), n)
		}
		return nil
	})
}
