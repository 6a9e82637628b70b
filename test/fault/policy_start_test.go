//go:build e2e

package fault

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/firstpacket"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/load"
	"poplin.dev/poplin/test/soak"
	"poplin.dev/poplin/test/webapp"
)

// Pods of namespace isolated talk with friends, ask for names, and no more.
const isolated = `
apiVersion: v1
kind: Namespace
metadata: {name: isolated}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody, namespace: isolated}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends, namespace: isolated}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress:
    - from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: friend}}}]
  egress:
    - to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: friend}}}]
    - to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}]
      ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
`

const bystander = `
---
apiVersion: v1
kind: Pod
metadata: {name: %[1]s-%[2]s, labels: {app: %[1]s}}
spec:
  nodeName: %[2]s
  terminationGracePeriodSeconds: 0
  containers:
    - {name: idle, image: "registry.k8s.io/e2e-test-images/agnhost:2.63.0", imagePullPolicy: IfNotPresent, args: [pause]}
`

// atOnce is how many newcomers come together.
const atOnce = 10

// The kubelet asks whether it is ready, every second, and it is when it answers.
const newcomer = `
---
apiVersion: v1
kind: Pod
metadata: {name: newcomer-%[1]d, namespace: isolated, labels: {made: "after-%[3]d"}}
spec:
  nodeName: %[2]s
  terminationGracePeriodSeconds: 0
  containers:
    - name: web
      image: registry.k8s.io/e2e-test-images/agnhost:2.63.0
      imagePullPolicy: IfNotPresent
      args: [netexec, --http-port=8080]
      readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1}
`

// end is a pod that hears and speaks.
type end struct {
	webapp.Pod
	place load.Place
	ear   *firstpacket.Ear
}

// newcomers finds pods on a node the moment they come to be: their network
// namespaces before they have addresses, and these before a link has them.
type newcomers struct {
	t    *testing.T
	ends []end

	mu     sync.Mutex
	ears   map[string]*firstpacket.Ear // by the namespace's file
	voices []*firstpacket.Voice
	errs   []error
}

// watch has each namespace that appears on the node hear, and speak to all
// ends, and has all ends speak to each address that is reserved.
func (n *newcomers) watch(ctx context.Context, namespaces, reservations string) {
	var to []netip.Addr
	for _, e := range n.ends {
		to = append(to, e.IPs...)
	}
	known := map[string]bool{}
	for _, f := range append(files(namespaces), files(reservations)...) {
		known[f] = true
	}
	for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
		for _, f := range files(namespaces) {
			if known[f] {
				continue
			}
			ear, err := firstpacket.Listen(n.t, load.In(f))
			if err != nil {
				continue // the file comes before what is mounted there
			}
			known[f] = true
			n.mu.Lock()
			n.ears[f] = ear
			n.mu.Unlock()
			n.speak(load.In(f), to...)
		}
		for _, f := range files(reservations) {
			addr, err := netip.ParseAddr(filepath.Base(f))
			if known[f] || err != nil {
				continue
			}
			known[f] = true
			for _, e := range n.ends {
				n.speak(e.place, addr)
			}
		}
	}
}

func (n *newcomers) speak(at load.Place, to ...netip.Addr) {
	v, err := firstpacket.Speak(n.t, at, to...)
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		n.errs = append(n.errs, err)
	} else {
		n.voices = append(n.voices, v)
	}
}

// quiet ends what speaks.
func (n *newcomers) quiet() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, v := range n.voices {
		v.Stop()
	}
	n.voices = nil
}

// judge says what arrived at a pod, and from it, once all that may has.
func (n *newcomers) judge(p webapp.Pod, file string) (forbidden, permitted int) {
	n.t.Helper()
	n.mu.Lock()
	ear := n.ears[file]
	n.mu.Unlock()
	if ear == nil {
		n.t.Fatalf("%s was not seen when it came to be", p.Name)
	}
	for _, e := range n.ends {
		for i := range e.IPs {
			heard := func() (in, out int) { return ear.From(e.IPs[i]), e.ear.From(p.IPs[i]) }
			if strings.HasPrefix(e.Name, "friend") {
				await.Success(n.t, time.Minute, func() error {
					if in, out := heard(); in < 10 || out < 10 {
						return fmt.Errorf("%s and %s do not hear each other under %s and %s", p.Name, e.Name, p.IPs[i], e.IPs[i])
					}
					return nil
				})
				in, out := heard()
				permitted += in + out
			} else if in, out := heard(); in+out > 0 {
				forbidden += in + out
				n.t.Errorf("%s, %s: %d forbidden datagrams from %s, %d to it", p.Name, p.IPs[i], in, e.Name, out)
			}
		}
	}
	return forbidden, permitted
}

func files(dir string) (list []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		list = append(list, filepath.Join(dir, e.Name()))
	}
	return list
}

// TestPodsStartIsolated: what a pod sends and what is sent to it, on its node and
// on another, every 5 ms from the moment that there is a network namespace or
// an address, does not arrive if the policies that were there before the pod
// forbid it, and arrives if they do not. The kubelet's probes and DNS work.
func TestPodsStartIsolated(t *testing.T) {
	c := shared(t)
	count := 10
	if soak.Full() {
		count = 50
	}
	n := &newcomers{t: t, ends: bystanders(t, c), ears: map[string]*firstpacket.Ear{}}
	// The policies were there before the pods, for this node too: after an outage
	// of the API server it may hear of them later.
	await.Success(t, time.Minute, func() error {
		if metrics := on(t, c, victim, "curl", "-s", "127.0.0.1:9410/metrics"); !strings.Contains(metrics, "\npoplin_policies 2\n") {
			return fmt.Errorf("%s does not know two policies", victim)
		}
		return nil
	})
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		n.watch(ctx, outside(t, c, victim, "/run/netns"), outside(t, c, victim, "/var/lib/cni/networks/poplin"))
	})
	defer watching.Wait()
	defer stop()
	var forbidden, permitted int
	for made := 0; made < count; made += atOnce {
		manifest := ""
		for i := range atOnce {
			manifest += fmt.Sprintf(newcomer, made+i, victim, made)
		}
		apply(t, c, manifest)
		those := fmt.Sprintf("made=after-%d", made)
		run(t, c, "-n", "isolated", "wait", "--for=condition=Ready", "pod", "-l", those, "--timeout=180s")
		pods, err := webapp.PodsIn(t.Context(), c.Kubectl, "isolated", those)
		ok(t, err)
		if len(pods) != atOnce {
			t.Errorf("%d pods, want %d", len(pods), atOnce)
		}
		for _, p := range pods {
			bad, good := n.judge(p, live.Namespace(t, c, victim, p.IPs[0]))
			forbidden, permitted = forbidden+bad, permitted+good
		}
		n.quiet()
		resolves(t, c, pods[0])
	}
	stop()
	watching.Wait()
	ok(t, errors.Join(n.errs...))
	t.Logf("%d pods: %d forbidden datagrams arrived, %d permitted ones", count, forbidden, permitted)
}

// bystanders makes policies, a friend and a stranger on each of two nodes.
func bystanders(t *testing.T, c *cluster.Cluster) (ends []end) {
	t.Helper()
	manifest := isolated
	for _, kind := range []string{"friend", "stranger"} {
		for _, node := range []string{victim, peer} {
			manifest += fmt.Sprintf(bystander, kind, node)
		}
	}
	apply(t, c, manifest)
	const those = "app in (friend, stranger)"
	run(t, c, "wait", "--for=condition=Ready", "pod", "-l", those, "--timeout=120s")
	list, err := webapp.Pods(t.Context(), c.Kubectl, those)
	ok(t, err)
	for _, p := range list {
		e := end{Pod: p, place: live.Pod(t, c, p.Node, p.IPs[0])}
		e.ear, err = firstpacket.Listen(t, e.place)
		ok(t, err)
		ends = append(ends, e)
	}
	if len(ends) != 4 || len(ends[0].IPs) != 2 {
		t.Fatalf("friends and strangers are %v", ends)
	}
	return ends
}

// resolves asks for a name as a pod would.
func resolves(t *testing.T, c *cluster.Cluster, p webapp.Pod) {
	t.Helper()
	server := net.JoinHostPort(strings.TrimSpace(run(t, c, "-n", "kube-system", "get", "service", "kube-dns", "-o", "jsonpath={.spec.clusterIP}")), "53")
	in := live.Pod(t, c, p.Node, p.IPs[0])
	for _, network := range []string{"udp", "tcp"} {
		r := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
			enter := in(func() error { conn, err = (&net.Dialer{}).DialContext(ctx, network, server); return nil })
			return conn, errors.Join(enter, err)
		}}
		await.Success(t, time.Minute, func() error {
			ctx, stop := context.WithTimeout(t.Context(), 5*time.Second)
			defer stop()
			_, err := r.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
			return err
		})
	}
}
