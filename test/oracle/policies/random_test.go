package policies_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/policy"
	policycompiler "poplin.dev/poplin/pkg/policy"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/pkg/trace"
	"poplin.dev/poplin/test/oracle/policies"
)

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the random operations")

// run is a world that changes, the table that follows it, and a mirror that
// got nothing but the table's changes, as the kernel does.
type run struct {
	dice
	pods       map[policy.Key]policy.Pod
	namespaces map[string]policy.Namespace
	nodes      map[string]policy.Node
	policies   map[policy.Key]policy.NetworkPolicy
	cluster    map[policy.Key]policy.ClusterPolicy
	table      *policycompiler.Table
	mirror     permit.Program
	lie        lie
}

const here = "worker-1"

func start(seed uint64, l lie) *run {
	return &run{
		dice: dice{rand.New(rand.NewPCG(seed, 2))}, lie: l,
		pods: map[policy.Key]policy.Pod{}, namespaces: map[string]policy.Namespace{}, nodes: map[string]policy.Node{},
		policies: map[policy.Key]policy.NetworkPolicy{}, cluster: map[policy.Key]policy.ClusterPolicy{},
		table: policycompiler.NewTable(here, permit.New()), mirror: permit.New(),
	}
}

// step changes one object and tells the table.
func (r *run) step() {
	switch n := r.IntN(20); {
	case n < 6:
		p := r.pod()
		r.pods[p.Key] = p
		r.table.SetPod(r.lie.aboutPod(p))
	case n < 8:
		k := r.podKey()
		delete(r.pods, k)
		if !r.lie.keepsPods {
			r.table.DeletePod(k)
		}
	case n < 10:
		s := r.namespace()
		if r.one(5) {
			delete(r.namespaces, s.Name)
			r.table.DeleteNamespace(s.Name)
			return
		}
		r.namespaces[s.Name] = s
		r.table.SetNamespace(s)
	case n < 14:
		p := r.networkPolicy()
		r.policies[p.Key] = p
		r.table.SetPolicy(r.lie.aboutPolicy(p))
	case n < 16:
		k := r.policyKey()
		delete(r.policies, k)
		if !r.lie.keepsPolicies {
			r.table.DeletePolicy(k)
		}
	case n < 17:
		c := r.clusterPolicy()
		r.cluster[c.Key] = c
		r.table.SetClusterPolicy(r.lie.aboutCluster(c))
	case n < 18:
		k := policy.Key{Name: pick(r.dice, "c1", "c2", "c3")}
		delete(r.cluster, k)
		r.table.DeleteClusterPolicy(k)
	default:
		n := r.node()
		if r.one(4) {
			delete(r.nodes, n.Name)
			r.table.DeleteNode(n.Name)
			return
		}
		r.nodes[n.Name] = n
		r.table.SetNode(n)
	}
}

func (r *run) world() policies.World {
	return policies.World{
		Node: here,
		Pods: slices.SortedFunc(maps.Values(r.pods), func(a, b policy.Pod) int { return a.Created.Compare(b.Created) }),

		Namespaces: slices.Collect(maps.Values(r.namespaces)), Nodes: slices.Collect(maps.Values(r.nodes)),
		Policies: slices.Collect(maps.Values(r.policies)), Cluster: slices.Collect(maps.Values(r.cluster)),
	}
}

// differ describes a packet for which program and oracle disagree.
func (r *run) differ(packets int) string {
	r.table.Take().Apply(r.mirror)
	w := r.world()
	for range packets {
		p := r.packet()
		v := trace.Policy(r.mirror, trace.Packet{
			Origin: trace.FromPod, Src: p.Src, Dst: netip.AddrPortFrom(p.Dst, p.Port), Proto: p.Proto,
		})
		if want := w.Allowed(p); want != (v.Action == trace.Pass) {
			return fmt.Sprintf("%+v: the oracle says allowed=%v, the program %s:\n%s", p, want, v.Action, strings.Join(v.Steps, "\n"))
		}
		if wrong := r.unexplained(w, p); wrong != "" {
			return fmt.Sprintf("%+v: %s", p, wrong)
		}
	}
	return ""
}

// TestRandom: after every change the program permits what the oracle allows.
// A table that was told of everything at once comes to the same.
func TestRandom(t *testing.T) {
	operations := 5000
	if os.Getenv("POPLIN_SOAK") != "" {
		operations = 100000
	}
	t.Logf("-seed %d", *seed)
	r := start(*seed, lie{})
	for i := range operations {
		r.step()
		if d := r.differ(20); d != "" {
			t.Fatalf("after %d operations: %s\n%s", i+1, d, r.describe())
		}
		if i%500 == 0 {
			r.compareFull(t)
		}
	}
	if n := r.mirror.Len(); n == 0 {
		t.Error("the program is empty at the end: nothing was tried")
	}
}

// compareFull has a new table compile the whole world. Numbers differ, but
// there must be as many elements of each kind, and the same verdicts.
func (r *run) compareFull(t *testing.T) {
	full := policycompiler.NewTable(here, permit.New())
	for _, n := range r.namespaces {
		full.SetNamespace(n)
	}
	for _, n := range r.nodes {
		full.SetNode(n)
	}
	for _, p := range r.world().Pods {
		full.SetPod(p)
	}
	for _, p := range r.policies {
		full.SetPolicy(p)
	}
	for _, c := range r.cluster {
		full.SetClusterPolicy(c)
	}
	f := full.Program()
	if got, want := counts(r.mirror), counts(f); got != want {
		t.Fatalf("change by change the program has %s elements, at once %s", got, want)
	}
	for range 200 {
		p := r.packet()
		pkt := trace.Packet{Origin: trace.FromPod, Src: p.Src, Dst: netip.AddrPortFrom(p.Dst, p.Port), Proto: p.Proto}
		if a, b := trace.Policy(r.mirror, pkt), trace.Policy(f, pkt); a.Action != b.Action {
			t.Fatalf("%+v: %s change by change, %s at once", p, a.Action, b.Action)
		}
	}
}

func counts(p permit.Program) string {
	return fmt.Sprint(len(p.Senders), len(p.Receivers), len(p.Loops), len(p.Peers), len(p.Ranges), len(p.Egress), len(p.Ingress), len(p.Ports))
}

func (r *run) describe() string {
	var b strings.Builder
	for _, p := range r.pods {
		fmt.Fprintf(&b, "pod %+v\n", p)
	}
	for _, n := range r.namespaces {
		fmt.Fprintf(&b, "namespace %+v\n", n)
	}
	for _, p := range r.policies {
		fmt.Fprintf(&b, "policy %s pods=%v ingress=%+v egress=%+v\n", p.Key, p.Pods, p.Ingress, p.Egress)
	}
	for _, c := range r.cluster {
		fmt.Fprintf(&b, "cluster %+v\n", c)
	}
	return b.String() + r.mirror.String()
}
