//go:build e2e

package fault

import (
	"fmt"
	"net/http"
	"net/netip"
	"regexp"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/load"
	"poplin.dev/poplin/test/soak"
)

// Of a pod on each node, the victim's is isolated both ways, the peer's is the
// one that it may talk to, and the third is a stranger.
const (
	openPort, shutPort = 7100, 7200

	fence = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: held}
spec:
  podSelector: {matchLabels: {role: held}}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{podSelector: {matchLabels: {role: friend}}}]
      ports: [{protocol: TCP, port: 7100, endPort: 7109}, {protocol: UDP, port: 7100}]
  egress:
    - to: [{podSelector: {matchLabels: {role: friend}}}]
      ports: [{protocol: TCP, port: 7100}, {protocol: UDP, port: 7100}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friend}
spec:
  podSelector: {matchLabels: {role: friend}}
  policyTypes: [Ingress, Egress]
  ingress: [{from: [{podSelector: {matchLabels: {role: held}}}]}]
  egress: [{to: [{podSelector: {matchLabels: {role: held}}}]}]
`
)

// fenced is the three pods: what they may say to each other, in every family,
// and what they may not.
type fenced struct {
	c         *cluster.Cluster
	allowed   []conversation
	forbidden []*load.Knocks
}

type conversation struct {
	from load.Place
	to   *load.Server
}

// newFenced shows that everything gets through before there are policies, and
// what is forbidden no more when there are.
func newFenced(t *testing.T) *fenced {
	t.Helper()
	f := &fenced{c: shared(t)}
	all := pods(t, f.c)
	for node, role := range map[string]string{victim: "held", peer: "friend", first: "stranger"} {
		run(t, f.c, "label", "pod", all[node].Name, "role="+role)
	}
	for i := range all[victim].IPs {
		at := func(node string) load.Place { return live.Pod(t, f.c, node, all[node].IPs[i]) }
		server := func(node string, port uint16) *load.Server {
			return load.Listen(t, at(node), netip.AddrPortFrom(all[node].IPs[i], port))
		}
		held, friend := server(victim, openPort), server(peer, openPort)
		f.allowed = append(f.allowed, conversation{at(peer), held}, conversation{at(victim), friend})
		f.forbidden = append(f.forbidden,
			load.Knock(t, at(first), held),                     // from a stranger
			load.Knock(t, at(peer), server(victim, shutPort)),  // at another port
			load.Knock(t, at(victim), server(first, openPort)), // to a stranger
		)
	}
	for _, k := range f.forbidden {
		k.Through(t)
	}
	apply(t, f.c, fence)
	f.silent(t)
	return f
}

// silent waits until nothing that is forbidden gets through.
func (f *fenced) silent(t *testing.T) {
	t.Helper()
	for _, k := range f.forbidden {
		k.Silent(t)
	}
}

// talk says what is allowed.
func (f *fenced) talk(t *testing.T) (all traffic) {
	t.Helper()
	for _, c := range f.allowed {
		all = append(all, load.Gently(t, c.from, c.to.Addr, c.to))
	}
	return all
}

// during has something happen: nothing that is forbidden gets through, and all
// that is allowed.
func (f *fenced) during(t *testing.T, something func(all traffic)) {
	t.Helper()
	all := f.talk(t)
	before, sent := make([]load.Heard, len(f.forbidden)), 0
	for i, k := range f.forbidden {
		before[i], sent = k.Heard(), sent-k.Sent()
	}
	all.after(20)
	something(all)
	all.after(20)
	all.lossless(t)
	for i, k := range f.forbidden {
		if now := k.Heard(); now != before[i] {
			t.Errorf("what is forbidden got through: %+v was heard, then %+v", before[i], now)
		}
		sent += k.Sent()
	}
	t.Logf("%d forbidden packets were sent", sent)
}

// TestPoliciesHold: whatever happens to the daemon of a node, to its rules, to
// other policies and to the API server, what policies forbid does not get
// through, and what they allow does. Without policies everything does.
func TestPoliciesHold(t *testing.T) {
	f := newFenced(t)
	more := fault{fmt.Sprintf("%d policies added and removed", soak.Times(1000)), 1, func(t *testing.T, _ int) {
		crowdOfPolicies(t, f.c, soak.Times(1000))
	}}
	for _, fault := range append(daemonFaults(t, f.c), more) {
		t.Run(fault.name, func(t *testing.T) {
			f.during(t, func(all traffic) {
				for n := range soak.Times(fault.times) {
					fault.do(t, n)
					all.after(20)
				}
			})
		})
	}
	t.Run("API server away", func(t *testing.T) {
		f.during(t, func(all traffic) {
			back := apiServerAway(t, f.c)
			for range soak.Times(10) {
				killed(t, f.c, victim)
				restarted(t, f.c, victim)
				all.after(300)
				on(t, f.c, victim, "nft", "flush", "ruleset")
				all.after(100)
			}
			back()
			ready(t, f.c, victim)
		})
	})
	// Nothing is forbidden where there are no rules: they are back with the
	// daemon.
	t.Run("ruleset flushed while the daemon is dead", func(t *testing.T) {
		all := f.talk(t)
		for range soak.Times(20) {
			killed(t, f.c, victim)
			flushed(t, f.c, victim)
			restarted(t, f.c, victim)
			ready(t, f.c, victim)
			f.silent(t)
		}
		// A burst that meets the flush itself may see a part of the rules.
		all.loses(t, 10*soak.Times(20))
	})
	run(t, f.c, "delete", "networkpolicies", "held", "friend")
	for _, k := range f.forbidden {
		k.Through(t)
	}
}

// crowdOfPolicies adds policies of the same pods, none of which permits what is
// forbidden, and removes them.
func crowdOfPolicies(t *testing.T, c *cluster.Cluster, n int) {
	t.Helper()
	client, err := c.API()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	type object = map[string]any
	const path = "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies"
	began := policiesOn(t, c, victim)
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(8)
	for i := range n {
		g.Go(func() error {
			peers := []object{
				{"podSelector": object{"matchLabels": object{"crowd": strconv.Itoa(i)}}},
				{"ipBlock": object{"cidr": netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), 32).String()}},
			}
			ports := []object{{"protocol": "TCP", "port": 10000 + i}}
			return client.Send(ctx, http.MethodPost, path, object{
				"metadata": object{"name": fmt.Sprint("crowd-", i), "labels": object{"crowd": "yes"}},
				"spec": object{
					"podSelector": object{"matchLabels": object{"role": "held"}}, "policyTypes": []string{"Ingress", "Egress"},
					"ingress": []object{{"from": peers, "ports": ports}}, "egress": []object{{"to": peers, "ports": ports}},
				},
			}, nil)
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	known := func(want int) {
		await.Success(t, time.Minute, func() error {
			if now := policiesOn(t, c, victim); now != want {
				return fmt.Errorf("the daemon knows %d policies, want %d", now, want)
			}
			return nil
		})
	}
	known(began + n)
	if err := client.Send(t.Context(), http.MethodDelete, path+"?labelSelector=crowd%3Dyes", nil, nil); err != nil {
		t.Fatal(err)
	}
	known(began)
}

var policyCount = regexp.MustCompile(`(?m)^poplin_policies (\d+)$`)

// policiesOn is how many policies a node's daemon has in the kernel.
func policiesOn(t *testing.T, c *cluster.Cluster, node string) int {
	t.Helper()
	m := policyCount.FindStringSubmatch(on(t, c, node, "curl", "-sf", "-m", "5", "127.0.0.1:9410/metrics"))
	if m == nil {
		t.Fatalf("%s: the daemon does not tell how many policies there are", node)
	}
	n, _ := strconv.Atoi(m[1])
	return n
}
