//go:build e2e

// Package e2e shows the main job on a real Kubernetes: one dual-stack cluster
// that all tests share, with one node behind a router, and a short IPv6-only
// one.
package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/capture"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/webapp"
)

// shared is the cluster of this package's tests.
var shared func(testing.TB) *cluster.Cluster

func TestMain(m *testing.M) {
	if command := os.Getenv(asRuntime); command != "" {
		if err := runtime(command, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	o := cluster.Options{Name: "e2e", Nodes: 3, Family: "dual", Network: "poplin", Routed: 3}
	os.Exit(live.Main(m, o, func(get func(testing.TB) *cluster.Cluster) { shared = get }))
}

// deployed is the shared cluster with the example on it.
func deployed(t *testing.T) *cluster.Cluster {
	t.Helper()
	c := shared(t)
	once.Do(func() { deployErr = deploy(t.Context(), c) })
	if deployErr != nil {
		t.Fatalf("deploy the example: %v", deployErr)
	}
	return c
}

var (
	once      sync.Once
	deployErr error
)

func deploy(ctx context.Context, c *cluster.Cluster) error {
	root, err := cluster.ProjectRoot()
	if err != nil {
		return err
	}
	return webapp.Deploy(ctx, c.Kubectl, root)
}

// example lists the pods of the example.
func example(t *testing.T, c *cluster.Cluster) []webapp.Pod {
	t.Helper()
	pods, err := webapp.Pods(t.Context(), c.Kubectl, "app in (web-app, probe)")
	if err != nil {
		t.Fatal(err)
	}
	return pods
}

// node is what the tests want to know of a Node.
type node struct {
	name      string
	addresses []netip.Addr
	podCIDRs  []netip.Prefix
}

func nodes(t *testing.T, c *cluster.Cluster) []node {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct{ PodCIDRs []netip.Prefix }
			Status   struct {
				Addresses []struct{ Type, Address string }
			}
		}
	}
	get(t, c, &list, "nodes")
	var all []node
	for _, i := range list.Items {
		n := node{name: i.Metadata.Name, podCIDRs: i.Spec.PodCIDRs}
		for _, a := range i.Status.Addresses {
			if a.Type == "InternalIP" {
				n.addresses = append(n.addresses, netip.MustParseAddr(a.Address))
			}
		}
		all = append(all, n)
	}
	return all
}

func get(t *testing.T, c *cluster.Cluster, into any, args ...string) {
	t.Helper()
	out, err := c.Kubectl(t.Context(), append([]string{"get", "-o", "json"}, args...)...)
	if err == nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestEachPodHasAnAddressOfItsNodesRanges(t *testing.T) {
	c := deployed(t)
	byName := map[string]node{}
	for _, n := range nodes(t, c) {
		byName[n.name] = n
	}
	on := map[string]bool{}
	for _, p := range example(t, c) {
		n := byName[p.Node]
		if strings.HasPrefix(p.Name, "web-app") {
			on[p.Node] = true
		}
		if len(p.IPs) != len(n.podCIDRs) {
			t.Errorf("pod %s has addresses %v, its node has ranges %v", p.Name, p.IPs, n.podCIDRs)
		}
		for _, ip := range p.IPs {
			if !slices.ContainsFunc(n.podCIDRs, func(r netip.Prefix) bool { return r.Contains(ip) }) {
				t.Errorf("pod %s has address %s outside of %s's ranges %v", p.Name, ip, n.name, n.podCIDRs)
			}
		}
	}
	if len(on) != 2 {
		t.Errorf("the two web-app pods run on %v, want two nodes", on)
	}
}

// Every pod reaches every pod, both ways, seen under its own address; and what
// passes on the wire meanwhile is VXLAN between the nodes' addresses, also to
// the node behind the router.
func TestEachPodReachesEachPodOverVXLANAlone(t *testing.T) {
	c := deployed(t)
	all, pods := nodes(t, c), example(t, c)
	watch, err := capture.Start(c.UnderlayNamespace())
	if err != nil {
		t.Fatal(err)
	}
	reaches, err := webapp.Matrix(t.Context(), c.Kubectl, pods)
	seen, watchErr := watch.Stop()
	if err != nil || watchErr != nil {
		t.Fatal(err, watchErr)
	}
	for _, r := range reaches {
		if !r.OK() {
			t.Error(r)
		}
	}
	if want := len(pods) * (len(pods) - 1) * 2; len(reaches) != want {
		t.Errorf("%d requests, want %d", len(reaches), want)
	}
	checkWire(t, seen, all)
}

func checkWire(t *testing.T, seen map[capture.Packet]int, all []node) {
	t.Helper()
	tunnels := map[[2]netip.Addr]int{}
	for p, n := range seen {
		for _, of := range all {
			for _, r := range of.podCIDRs {
				if r.Contains(p.Src.Addr()) || r.Contains(p.Dst.Addr()) {
					t.Errorf("%d packets of pods passed outside the overlay: %s", n, p)
				}
			}
		}
		if p.Protocol == 17 && p.Dst.Port() == 8472 {
			tunnels[[2]netip.Addr{p.Src.Addr(), p.Dst.Addr()}] += n
		}
	}
	for _, a := range all {
		for _, b := range all {
			pair := [2]netip.Addr{a.addresses[0], b.addresses[0]}
			if a.name != b.name && tunnels[pair] == 0 {
				t.Errorf("no VXLAN packet from %s to %s was seen; seen: %v", a.name, b.name, tunnels)
			}
			delete(tunnels, pair)
		}
	}
	if len(tunnels) > 0 {
		t.Errorf("VXLAN packets between addresses that are not the nodes': %v", tunnels)
	}
}

func TestServicesAnswerOnEveryNode(t *testing.T) {
	c := deployed(t)
	for _, p := range example(t, c) {
		if strings.HasPrefix(p.Name, "probe") {
			servesAt(t, c, p)
		}
	}
}

// servesAt asks web-app by every way that Services have.
func servesAt(t *testing.T, c *cluster.Cluster, from webapp.Pod) {
	t.Helper()
	ways, err := webapp.Ways(t.Context(), c.Kubectl)
	if err != nil {
		t.Fatal(err)
	}
	await.Success(t, 20*time.Second, func() error {
		answers, err := webapp.Get(t.Context(), c.Kubectl, from.Name, ways)
		for i, a := range answers {
			if !strings.HasPrefix(a, "web-app-") {
				return fmt.Errorf("%s answered %q to %s on %s", ways[i], a, from.Name, from.Node)
			}
		}
		return err
	})
}

// TestNoKubeProxyRuns on any of the nodes.
func TestNoKubeProxyRuns(t *testing.T) {
	c := deployed(t)
	for _, node := range c.Nodes() {
		if live.Process(t, c.Namespace(node), "kube-proxy", "") != 0 {
			t.Errorf("%s: a kube-proxy runs", node)
		}
		if live.Process(t, c.Namespace(node), "kubelet", "") == 0 {
			t.Errorf("%s: no kubelet runs: looked at the wrong processes", node)
		}
	}
}
