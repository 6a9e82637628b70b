package policy_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	module "poplin.dev/poplin/daemon/policy"
	"poplin.dev/poplin/pkg/apply/permit"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/policy/claims"
	"poplin.dev/poplin/pkg/trace"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/enforce"
	"poplin.dev/poplin/test/space"
)

// running is the module on a node of its own, with one pod.
type running struct {
	t       *testing.T
	space   *space.Space
	objects *enforce.Objects

	module *module.Module

	mu         sync.Mutex
	told       []string
	last       module.State
	namespaces map[string]bool
}

var pod = netip.MustParseAddr("10.244.1.2")

func start(t *testing.T) *running {
	r := &running{t: t, space: space.New(t), objects: enforce.NewObjects()}
	r.objects.SetNamespace(policy.Namespace{Name: "shop"})
	r.objects.SetPod(policy.Pod{Key: policy.Key{Namespace: "shop", Name: "web"}, Node: "worker-1", Addresses: []netip.Addr{pod}})
	m := module.New(module.Deps{
		// Without an owner, the test can read the table too.
		Config: module.Config{Node: "worker-1", Plain: true, Verify: 100 * time.Millisecond}, Source: r.objects, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Namespaces: func(list map[string]bool) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.namespaces = list
		},
		Event: func(about cluster.Reference, why reason.Reason, _ string) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.told = append(r.told, about.String()+" "+why.String())
		},
		Report: func(s module.State) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.last = s
		},
	})
	r.module = m
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.space.Do(func() error { return m.Run(ctx) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-m.Ready()
	return r
}

// sends reports whether the kernel's table lets the pod send to an address.
func (r *running) sends(to string) (passes bool) {
	r.t.Helper()
	if err := r.space.Do(func() error {
		kernel, err := permit.Open(permit.Config{Plain: true, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			return err
		}
		defer kernel.Close()
		program, err := kernel.Program()
		if err != nil {
			return err
		}
		v := trace.Policy(program, trace.Packet{Origin: trace.FromPod, Src: pod, Dst: netip.AddrPortFrom(netip.MustParseAddr(to), 80), Proto: 6})
		passes = v.Action == trace.Pass
		return nil
	}); err != nil {
		r.t.Fatal(err)
	}
	return passes
}

func (r *running) expect(verdicts map[string]bool) {
	r.t.Helper()
	await.Success(r.t, 20*time.Second, func() error {
		for to, want := range verdicts {
			if got := r.sends(to); got != want {
				return fmt.Errorf("sends to %s: %v, want %v", to, got, want)
			}
		}
		return nil
	})
}

// A policy that names nodes which are not known yet says what it said before;
// in between nothing is permitted that neither of the two permits.
func TestAPolicyChangesWholeOnceItsNodesAreKnown(t *testing.T) {
	r := start(t)
	key := policy.Key{Name: "p"}
	rule := func(a policy.Action, peers ...policy.Peer) policy.ClusterRule {
		return policy.ClusterRule{Action: a, Rule: policy.Rule{Peers: peers}}
	}
	r.objects.SetClusterPolicy(policy.ClusterPolicy{Key: key, Tier: policy.Admin, Egress: []policy.ClusterRule{rule(policy.Deny)}})
	r.expect(map[string]bool{"192.0.2.1": false, "198.51.100.1": false})
	r.objects.SetClusterPolicy(policy.ClusterPolicy{Key: key, Tier: policy.Admin, Egress: []policy.ClusterRule{
		rule(policy.Deny, policy.Peer{Nodes: &policy.Selector{}}), rule(policy.Accept)}})
	// A later change is in the kernel, and passes over everything went by.
	other := netip.MustParseAddr("10.244.1.3")
	r.objects.SetPod(policy.Pod{Key: policy.Key{Namespace: "shop", Name: "api"}, Node: "worker-1", Addresses: []netip.Addr{other}})
	await.Success(t, 20*time.Second, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.last.Isolated != 2 || !r.last.Full {
			return fmt.Errorf("the last pass says %+v", r.last)
		}
		return nil
	})
	for _, to := range []string{"192.0.2.1", "198.51.100.1"} {
		if r.sends(to) {
			t.Errorf("half a policy permits %s", to)
		}
	}
	r.objects.SetNodes(policy.Node{Name: "worker-2", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	r.expect(map[string]bool{"192.0.2.1": false, "198.51.100.1": true})
}

// The pods that a policy is about wait with it for the nodes that it names.
func TestAPodWaitsWithItsPolicy(t *testing.T) {
	r := start(t)
	about := func(want bool) {
		t.Helper()
		await.Success(t, 20*time.Second, func() error {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.namespaces["shop"] != want {
				return fmt.Errorf("policies are about pods of the namespace: %v, want %v", r.namespaces["shop"], want)
			}
			return nil
		})
	}
	about(false)
	deny := policy.ClusterRule{Action: policy.Deny, Rule: policy.Rule{Peers: []policy.Peer{{Nodes: &policy.Selector{}}}}}
	r.objects.SetClusterPolicy(policy.ClusterPolicy{Key: policy.Key{Name: "p"}, Tier: policy.Admin, Egress: []policy.ClusterRule{deny}})
	about(true)
	api, address := policy.Key{Namespace: "shop", Name: "api"}, netip.MustParseAddr("10.244.1.3")
	holds := r.module.Claim(claims.Claim{Pod: api, UID: "1", Sandbox: "a", Addresses: []netip.Addr{address}})
	r.objects.SetPod(policy.Pod{Key: api, UID: "1", Node: "worker-1", Addresses: []netip.Addr{address}})
	select {
	case <-holds:
		t.Error("a pod starts ahead of a policy that is about it")
	case <-time.After(300 * time.Millisecond): // three passes over everything
	}
	r.objects.SetNodes(policy.Node{Name: "worker-2", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}})
	select {
	case <-holds:
	case <-time.After(20 * time.Second):
		t.Error("the pod still waits with the nodes known")
	}
}

// Each mistake is told about the policy that it is in, of whichever kind.
func TestMistakesAreToldAboutTheirPolicy(t *testing.T) {
	r := start(t)
	r.objects.SetClusterPolicy(policy.ClusterPolicy{Key: policy.Key{Name: "guard"}, Tier: policy.Admin,
		Egress: []policy.ClusterRule{{Action: policy.Deny, Unread: "to[0]: of a kind to come"}}})
	r.objects.SetPolicy(policy.NetworkPolicy{Key: policy.Key{Namespace: "shop", Name: "web"},
		Ingress: &policy.Rules{{Ports: []policy.Port{{Protocol: 6, First: 90, Last: 80}}}}})
	await.Success(t, 20*time.Second, func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, want := range []string{"ClusterNetworkPolicy guard BadRule", "NetworkPolicy shop/web BadPort"} {
			if !slices.Contains(r.told, want) {
				return fmt.Errorf("told %q, not %q", r.told, want)
			}
		}
		if r.last.Findings != 2 || r.last.Policies != 2 {
			return fmt.Errorf("the last pass says %+v", r.last)
		}
		return nil
	})
}
