//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/thread"
	"poplin.dev/poplin/test/webapp"
)

// tiers asks who reaches whom while ClusterNetworkPolicies change.
type tiers struct {
	t       *testing.T
	c       *cluster.Cluster
	dir     string
	web     webapp.Pod
	probes  []webapp.Pod // on other nodes than web
	applied []string
}

// apply applies objects, given as YAML.
func (r *tiers) apply(objects string) {
	r.t.Helper()
	file := filepath.Join(r.dir, strconv.Itoa(len(r.applied))+".yaml")
	if err := os.WriteFile(file, []byte(objects), 0o600); err != nil {
		r.t.Fatal(err)
	}
	r.applied = append(r.applied, file)
	if _, err := r.c.Kubectl(r.t.Context(), "apply", "-f", file); err != nil {
		r.t.Fatal(err)
	}
}

func (r *tiers) remove(objects ...string) {
	r.t.Helper()
	if _, err := r.c.Kubectl(r.t.Context(), append([]string{"delete", "--ignore-not-found"}, objects...)...); err != nil {
		r.t.Fatal(err)
	}
}

// reaches connects from a pod to an address.
func (r *tiers) reaches(from webapp.Pod, to netip.AddrPort) bool {
	r.t.Helper()
	reached := false
	err := thread.In(live.Namespace(r.t, r.c, from.Node, from.IPs[0]), func() error {
		conn, err := net.DialTimeout("tcp", to.String(), time.Second)
		if reached = err == nil; reached {
			conn.Close()
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return reached
}

// see waits until connections from one pod to all addresses of another are
// made, or are not.
func (r *tiers) see(what string, from webapp.Pod, to []netip.Addr, port uint16, want bool) {
	r.t.Helper()
	await.Success(r.t, time.Minute, func() error {
		for _, a := range to {
			if got := r.reaches(from, netip.AddrPortFrom(a, port)); got != want {
				return fmt.Errorf("%s: %s reaches %s: %v, want %v", what, from.Name, a, got, want)
			}
		}
		return nil
	})
}

// said waits for an Event about a policy.
func (r *tiers) said(policy, reason, text string) {
	r.t.Helper()
	await.Success(r.t, time.Minute, func() error {
		out, err := r.c.Kubectl(r.t.Context(), "get", "events", "-n", "default", "-o", "jsonpath={range .items[*]}{.message}{'\\n'}{end}",
			"--field-selector", "involvedObject.kind=ClusterNetworkPolicy,involvedObject.name="+policy+",reason="+reason)
		if err == nil && !strings.Contains(string(out), text) {
			err = fmt.Errorf("no Event about %s says %q: %s", policy, text, out)
		}
		return err
	})
}

// clusterPolicy is one about the example's pods.
func clusterPolicy(name, tier string, priority int, rules string) string {
	return fmt.Sprintf(`
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: %s}
spec:
  tier: %s
  priority: %d
  subject: {pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: default}}, podSelector: {}}}
  %s
`, name, tier, priority, rules)
}

// ClusterNetworkPolicies are in force from the moment on at which their kind is
// installed, and until it is removed, beside a daemon that was there before.
func TestClusterNetworkPolicies(t *testing.T) {
	c := deployed(t)
	root, err := cluster.ProjectRoot()
	if err != nil {
		t.Fatal(err)
	}
	r := &tiers{t: t, c: c, dir: t.TempDir()}
	for _, p := range example(t, c) {
		if strings.HasPrefix(p.Name, "web-app") {
			r.web = p
		}
	}
	for _, p := range example(t, c) {
		if strings.HasPrefix(p.Name, "probe") && p.Node != r.web.Node {
			r.probes = append(r.probes, p)
		}
	}
	if len(r.probes) < 2 || len(r.web.IPs) != 2 {
		t.Fatalf("the example has web %+v, probes %+v", r.web, r.probes)
	}
	probe := r.probes[0]
	pid := live.Daemon(t, c, probe.Node)
	const kind = "crd/clusternetworkpolicies.policy.networking.k8s.io"
	t.Cleanup(func() {
		// The test's context has ended by now.
		if _, err := c.Kubectl(context.Background(), "delete", "--ignore-not-found", kind, "networkpolicy/web"); err != nil {
			t.Error(err)
		}
	})
	web := func(what string, want bool) {
		t.Helper()
		r.see(what, probe, r.web.IPs, webapp.Port, want)
	}
	web("no kind", true)

	crd, err := os.ReadFile(filepath.Join(root, "test/testdata/clusternetworkpolicies.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	r.apply(string(crd))
	if _, err := c.Kubectl(t.Context(), "wait", "--for=condition=Established", "--timeout=60s", kind); err != nil {
		t.Fatal(err)
	}

	const everyPod = "{namespaces: {}}"
	r.apply(clusterPolicy("base", "Baseline", 10, "ingress: [{action: Deny, from: ["+everyPod+"]}]"))
	web("a baseline that denies", false)
	r.apply(`
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: default}
spec:
  podSelector: {matchLabels: {app: web-app}}
  ingress: [{from: [{podSelector: {matchLabels: {app: probe}}}], ports: [{port: 8080}]}]
`)
	web("a NetworkPolicy before the baseline", true)
	r.see("the baseline for whom no NetworkPolicy selects", r.web, probe.IPs, webapp.Port, false)
	r.apply(clusterPolicy("deny", "Admin", 20, "ingress: [{action: Deny, from: ["+everyPod+"], protocols: [{tcp: {destinationPort: {number: 8080}}}]}]"))
	web("an administrator before the NetworkPolicy", false)
	r.apply(clusterPolicy("pass", "Admin", 10, "ingress: [{action: Pass, from: [{pods: {podSelector: {matchLabels: {app: probe}}}}]}]"))
	web("what is passed on", true)
	r.see("what is not passed on", r.web, probe.IPs, webapp.Port, false)
	r.apply(clusterPolicy("accept", "Admin", 0, "ingress: [{action: Accept, from: ["+everyPod+"]}]"))
	r.see("the lowest priority first", r.web, probe.IPs, webapp.Port, true)

	r.apply(clusterPolicy("accept", "Admin", 0, "ingress: [{action: Accept, from: ["+everyPod+", {zones: [a]}]}]"))
	r.see("a kind of peer to come accepts nobody", r.web, probe.IPs, webapp.Port, false)
	r.said("accept", "BadRule", "zones")
	web("and the rest is as it was", true)
	r.apply(clusterPolicy("future", "Admin", 0, "ingress: [{action: Deny, from: [{zones: [a]}]}]"))
	web("a kind of peer to come denies everybody", false)
	r.said("future", "BadRule", "denies everybody")
	r.remove("cnp/future", "cnp/accept", "cnp/deny", "cnp/base")
	web("policies that are deleted", true)

	r.nodes(c, probe)

	r.apply(clusterPolicy("deny", "Admin", 20, "ingress: [{action: Deny, from: ["+everyPod+"]}]"))
	r.remove("cnp/pass")
	web("before the kind goes", false)
	r.remove(kind)
	web("without the kind", true)
	if now := live.Daemon(t, c, probe.Node); now != pid || pid == 0 {
		t.Errorf("the daemon was process %d and is %d", pid, now)
	}
}

// kubelet is a port at which each node listens.
const kubelet = 10250

// nodes shows nodes as peers, by their labels and addresses.
func (r *tiers) nodes(c *cluster.Cluster, probe webapp.Pod) {
	r.t.Helper()
	all := nodes(r.t, c)
	denied := slices.IndexFunc(all, func(n node) bool { return n.name == r.web.Node })
	other := slices.IndexFunc(all, func(n node) bool { return n.name != r.web.Node && n.name != probe.Node })
	r.see("no policy names nodes", probe, all[denied].addresses, kubelet, true)
	r.apply(clusterPolicy("nodes", "Admin", 5, "egress: [{action: Deny, to: [{nodes: {matchLabels: {kubernetes.io/hostname: "+r.web.Node+"}}}]}]"))
	r.see("a node that is denied", probe, all[denied].addresses, kubelet, false)
	r.see("another node", probe, all[other].addresses, kubelet, true)
	r.see("a pod of the node", probe, r.web.IPs, webapp.Port, true)
	r.remove("cnp/nodes")
	r.see("no policy names nodes any more", probe, all[denied].addresses, kubelet, true)
}
