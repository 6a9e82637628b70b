//go:build e2e

package fault

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/cluster/place"
	"poplin.dev/poplin/test/fault/corpus"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/load"
	"poplin.dev/poplin/test/soak"
	"poplin.dev/poplin/test/webapp"
)

// apiServerAway kills the API server; back, also the test's end, starts it.
func apiServerAway(t *testing.T, c *cluster.Cluster) (back func()) {
	t.Helper()
	const name = "kube-apiserver"
	if err := c.KillDaemon(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl(t.Context(), "get", "--raw=/readyz"); err == nil {
		t.Fatal("the API server that was killed answers")
	}
	away := true
	back = func() {
		if !away {
			return
		}
		away = false
		ctx := context.WithoutCancel(t.Context())
		err := c.StartDaemon(name)
		// Its clients wait longer and longer before they ask again.
		clients := []string{"kube-controller-manager", "kube-scheduler"}
		for _, node := range c.Nodes() {
			clients = append(clients, "kubelet-"+node)
		}
		for _, client := range clients {
			err = errors.Join(err, c.KillDaemon(ctx, client), c.StartDaemon(client))
		}
		if err := errors.Join(err, c.WaitReady(ctx)); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(back)
	return back
}

// TestAPIServerAway: for five minutes there is no API server. Containers
// restart, pods come and go through the kubelet and through libcni, the daemon
// is killed and started again, and nothing is lost.
func TestAPIServerAway(t *testing.T) {
	c := shared(t)
	all := pods(t, c)
	asManyAsPods(t, c) // those of the test before may still be on their way out
	before := attachments(t, c)
	traffic := between(t, c, all[victim], all[peer])
	other := newLibrary(t, c, victim)
	back := apiServerAway(t, c)
	end := time.Now().Add(time.Duration(soak.Times(10)) * 30 * time.Second)
	rounds := 0
	for ; rounds == 0 || time.Now().Before(end); rounds++ {
		containerRestarts(t, c, all[victim])
		addrs := start(t, c, victim, "outage")
		for _, addr := range addrs {
			reached(t, c, all[peer], webapp.Pod{Node: victim, IPs: []netip.Addr{addr}})
		}
		other.addAndDelete(fmt.Sprintf("outage-%d", rounds))
		killed(t, c, victim)
		restarted(t, c, victim)
		stop(t, c, victim, "outage")
		traffic.after(1000)
	}
	t.Logf("%d rounds", rounds)
	back()
	ready(t, c, victim)
	traffic.lossless(t)
	await.Success(t, time.Minute, func() error {
		if after := attachments(t, c); after != before {
			return fmt.Errorf("there is\n%swhere there was\n%s", after, before)
		}
		return nil
	})
}

// containerRestarts kills a pod's container, and waits for the kubelet to
// start it anew in the same sandbox.
func containerRestarts(t testing.TB, c *cluster.Cluster, p webapp.Pod) {
	t.Helper()
	sandbox := live.Namespace(t, c, p.Node, p.IPs[0])
	old := live.Process(t, sandbox, "agnhost", "pause")
	if err := unix.Kill(old, unix.SIGKILL); old == 0 || err != nil {
		t.Fatalf("kill the container of %s, process %d: %v", p.Name, old, err)
	}
	await.Success(t, time.Minute, func() error {
		if now := live.Process(t, sandbox, "agnhost", "pause"); now == 0 || now == old {
			return fmt.Errorf("the container of %s has not restarted", p.Name)
		}
		return nil
	})
}

// reached sends from one pod to another for a moment.
func reached(t testing.TB, c *cluster.Cluster, from, to webapp.Pod) {
	t.Helper()
	for _, addr := range to.IPs {
		for _, own := range from.IPs {
			if own.Is4() == addr.Is4() {
				server := load.Listen(t, live.Pod(t, c, to.Node, addr), netip.AddrPortFrom(addr, 0))
				l := load.Start(t, live.Pod(t, c, from.Node, own), server.Addr, server)
				l.After(100)
				l.Stop().Lossless(t)
				server.Close()
			}
		}
	}
}

// TestPowerCycleWithoutAPIServer: a node is switched off and on while the API
// server is away. Its daemon, a static pod, restores the overlay and the
// conflist from what it last knew, and says that this may be stale; a static
// pod gets its address and is reached from another node.
func TestPowerCycleWithoutAPIServer(t *testing.T) {
	c := shared(t)
	all := pods(t, c)
	live.Static(t, c, peer)
	start(t, c, peer, "survivor")
	back := apiServerAway(t, c)
	if err := c.StopNode(t.Context(), peer); err != nil {
		t.Fatal(err)
	}
	conflist := filepath.Join(place.Disk(c.Name()), peer, "etc/cni/net.d/10-poplin.conflist")
	if err := os.Remove(conflist); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := c.StartNode(t.Context(), peer); err != nil {
		t.Fatal(err)
	}
	survivor := webapp.Pod{Node: peer, IPs: addressesOf(t, c, peer, "survivor")}
	t.Logf("a static pod has %v again %v after the node was switched on", survivor.IPs, time.Since(began).Round(100*time.Millisecond))
	if _, err := os.Stat(conflist); errors.Is(err, fs.ErrNotExist) {
		t.Error("the conflist was not restored")
	}
	reached(t, c, all[victim], survivor)
	answer, _ := c.Exec(t.Context(), peer, "curl", "-s", "-m", "5", "127.0.0.1:9411/readyz")
	if !strings.Contains(string(answer), "which may be stale") {
		t.Errorf("readiness does not say that what it knows may be stale: %s", answer)
	}
	back()
	ready(t, c, peer)
	reached(t, c, all[victim], survivor)
}

// TestTraceWithoutAPIServer: on a node that the API server has left alone, a trace
// tells from what the node knows, and says so: a way to a pod of the node is well,
// of a Service what nobody kept is unknown, and a fault in the kernel is named at
// its hop, even while the daemon hangs.
func TestTraceWithoutAPIServer(t *testing.T) {
	c := shared(t)
	lab := corpus.Open(t, c, 2000+random("port").IntN(28000))
	all, err := corpus.Read()
	if err != nil {
		t.Fatal(err)
	}
	var cases []*corpus.Case
	for _, f := range []corpus.Fault{corpus.Healthy(corpus.Path{Kind: corpus.PodToPod}), corpus.Healthy(corpus.Path{Kind: corpus.PodToService})} {
		f.Path.OneNode = true
		cases = append(cases, lab.Draw(t, f, random(f.Name)))
	}
	for _, f := range all {
		if slices.Contains([]string{"link-down-host", "overlay-fdb-missing", "firewall-raw"}, f.Name) {
			f.Path.OneNode = !f.Path.OtherNode
			cases = append(cases, lab.Draw(t, f, random(f.Name)))
		}
	}
	for _, of := range cases {
		if err := of.Works(t.Context()); err != nil {
			t.Fatalf("%s: %v", of, err)
		}
		if e := here(t, c, of); e.LastGood != nil || e.Status != "OK" && of.Path.OneNode {
			t.Errorf("%s: with the API server: %s, %+v", of, e, e.LastGood)
		}
	}
	back := apiServerAway(t, c)
	for _, of := range cases {
		breaks(t, of, func() {
			e := here(t, c, of)
			t.Logf("%s: %s", of, e)
			switch {
			case e.LastGood == nil || e.LastGood.Node != of.Value("NEAR"):
				t.Errorf("%s: it does not say whose knowledge it is: %+v", of, e.LastGood)
			case of.Hop != "" && !e.is(of.Fault):
				t.Errorf("%s: want %s broken", of, of.Hop)
			case of.Hop == "" && of.Path.Kind == corpus.PodToPod && e.Status != "OK":
				t.Errorf("%s: nothing is wrong", of)
			case of.Hop == "" && of.Path.Kind == corpus.PodToService && (e.Status != "UNKNOWN" || e.Hop != "service"):
				t.Errorf("%s: want the Service's selector unknown, and nothing else", of)
			}
		})
	}
	out, err := asRoot(t, c, victim, "render", "-node", victim).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "last knew of the cluster") {
		t.Errorf("render of a node that is what it should be: %v: %s", err, out)
	}
	back()
}

// breaks lets a case's fault, if it has one, be for as long as then takes.
func breaks(t *testing.T, of *corpus.Case, then func()) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	defer func() {
		if err := errors.Join(of.Do(ctx, of.Mend), of.Works(ctx), of.Forget(ctx)); err != nil {
			t.Errorf("%s: mend: %v", of, err)
		}
	}()
	if err := of.Do(t.Context(), of.Break); err != nil {
		t.Fatalf("%s: break: %v", of, err)
	}
	if of.Hop != "" {
		if err := of.Fails(t.Context()); err != nil {
			t.Fatalf("%s: %v", of, err)
		}
	}
	then()
}
