//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/trace/way"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/webapp"
)

// traced is what a trace says.
func traced(t *testing.T, c *cluster.Cluster, ends ...string) (r way.Report, code int) {
	t.Helper()
	began := time.Now()
	out, code := ran(t, live.Poplinctl(t.Context(), t, c, append(append([]string{"trace"}, ends...), "-o", "json")...))
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		t.Fatalf("trace %v: %v, exit %d\n%s", ends, err, code, out)
	}
	t.Logf("trace %s: %s %s in %v", strings.Join(ends, " "), r.Status, r.Hop, time.Since(began).Round(time.Millisecond))
	return r, code
}

// TestTraceOfHealthyWays: nothing is accused where all is well, and without
// leave to look into pods nobody says OK of them.
func TestTraceOfHealthyWays(t *testing.T) {
	c := deployed(t)
	pods := example(t, c)
	first := "pod/" + pods[0].Name
	if r, code := traced(t, c, first, "service/web-service:80"); r.Status != way.Unknown || r.Hop != way.PodLink || code != 0 {
		t.Errorf("without leave: %s %s, exit %d", r.Status, r.Hop, code)
	}
	live.Inspect(t, c)
	ways := [][]string{
		{first, "service/web-service:80"}, {"node/worker-3", "service/web-service"}, {"service/web-node-port"},
		{first, "service/kube-system/kube-dns:53/udp"}, {first, "service/default/kubernetes:443"}, {"node/worker-1", "service/default/kubernetes"},
	}
	for _, from := range pods {
		for _, to := range pods {
			if from.Name != to.Name {
				ways = append(ways, []string{"pod/" + from.Name, fmt.Sprintf("pod/%s:%d", to.Name, webapp.Port)})
			}
		}
		for _, a := range from.IPs {
			ways = append(ways, []string{"node/worker-2", netip.AddrPortFrom(a, webapp.Port).String()})
		}
	}
	for _, ends := range ways {
		if r, code := traced(t, c, ends...); r.Status != way.OK || code != 0 {
			t.Errorf("trace %v: %s, hop %s on node %s: %s", ends, r.Status, r.Hop, r.Node, r.Cause)
		}
	}
	t.Logf("%d ways", len(ways))
}

// TestTraceNamesTheHop: each of these breaks the way from one node's pod to
// another's, or to the Service, and is named on the node where it is.
func TestTraceNamesTheHop(t *testing.T) {
	c := deployed(t)
	live.Inspect(t, c)
	on := map[string]webapp.Pod{}
	for _, p := range example(t, c) {
		if strings.HasPrefix(p.Name, "probe") {
			on[p.Node] = p
		}
	}
	const here, there = "worker-1", "worker-2"
	from, to := on[here], on[there]
	var mac string
	var network struct {
		Spec struct{ VTEP struct{ MAC, Address string } }
	}
	get(t, c, &network, "nodenetwork", there)
	mac = network.Spec.VTEP.MAC
	inner := func(a netip.Addr) string {
		p, err := a.Prefix(map[bool]int{true: 24, false: 64}[a.Is4()])
		if err != nil {
			t.Fatal(err)
		}
		return p.Addr().String()
	}
	run := func(node, line string) func() {
		return func() {
			t.Helper()
			if _, err := c.Exec(context.WithoutCancel(t.Context()), node, "sh", "-c", line); err != nil {
				t.Fatal(err)
			}
		}
	}
	kubectl := func(args ...string) func() {
		return func() {
			t.Helper()
			if _, err := c.Kubectl(context.WithoutCancel(t.Context()), args...); err != nil {
				t.Fatal(err)
			}
		}
	}
	patch := func(text string) func() { return kubectl("patch", "service", "web-service", "--type=json", "-p", text) }
	a := to.IPs[0]
	direct := []string{"pod/" + from.Name, netip.AddrPortFrom(a, webapp.Port).String()}
	service := []string{"pod/" + from.Name, "service/web-service:80"}
	for _, row := range []struct {
		name string
		// stopped daemons do not mend what is harmed.
		stopped    []string
		harm, mend func()
		ends       []string
		hop        way.Class
		node       string
	}{
		{"no forwarding entry", []string{here}, run(here, "bridge fdb del "+mac+" dev poplin-vx"), run(here, "bridge fdb add "+mac+" dev poplin-vx dst "+network.Spec.VTEP.Address), direct, way.Overlay, here},
		{"wrong MAC address", []string{here}, run(here, "ip neigh replace "+inner(a)+" lladdr 02:00:00:00:00:99 dev poplin-vx nud permanent"), run(here, "ip neigh replace "+inner(a)+" lladdr "+mac+" dev poplin-vx nud permanent"), direct, way.Overlay, here},
		{"forwarding is off", []string{there}, run(there, "sysctl -qw net.ipv4.ip_forward=0"), run(there, "sysctl -qw net.ipv4.ip_forward=1"), direct, way.Sysctl, there},
		{"no device", []string{there}, run(there, "ip link set poplin-vx down"), run(there, "ip link set poplin-vx up"), direct, way.Decapsulation, there},
		{"somebody else's firewall", nil, run(there, "nft add table inet fence; nft add chain inet fence f '{ type filter hook forward priority 0; }'; nft add rule inet fence f ip daddr "+a.String()+" drop"), run(there, "nft delete table inet fence"), direct, way.Firewall, there},
		{"overlay packets are dropped", nil, run(here, "nft add table inet fence; nft add chain inet fence o '{ type filter hook output priority 0; }'; nft add rule inet fence o udp dport 8472 drop"), run(here, "nft delete table inet fence"), direct, way.Firewall, here},
		{"target port", nil, patch(`[{"op":"replace","path":"/spec/ports/0/targetPort","value":8081}]`), patch(`[{"op":"replace","path":"/spec/ports/0/targetPort","value":8080}]`), service, way.Service, ""},
		{"selector", nil, patch(`[{"op":"replace","path":"/spec/selector","value":{"app":"wbe-app"}}]`), patch(`[{"op":"replace","path":"/spec/selector","value":{"app":"web-app"}}]`), service, way.Service, ""},
		{"nobody listens", nil, func() {}, func() {}, []string{"pod/" + from.Name, "pod/" + to.Name + ":9"}, way.Socket, there},
		{"no address for outside", nil, func() {}, func() {}, []string{"external", "service/web-service:80"}, way.Entry, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, node := range row.stopped {
				pid := live.Daemon(t, c, node)
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
			}
			row.harm()
			t.Cleanup(row.mend)
			await.Success(t, 20*time.Second, func() error { // an API's change takes its time
				r, code := traced(t, c, row.ends...)
				if want := 10 + slices.Index(way.Classes(), row.hop); r.Status != way.Broken || r.Hop != row.hop || r.Node != row.node || code != want || r.Cure == "" {
					return fmt.Errorf("%s, hop %s on node %q (%s), exit %d; want hop %s on node %q, exit %d", r.Status, r.Hop, r.Node, r.Cause, code, row.hop, row.node, want)
				}
				return nil
			})
		})
	}
	await.Success(t, time.Minute, func() error {
		if r, _ := traced(t, c, direct...); r.Status != way.OK {
			return fmt.Errorf("afterwards: %s, hop %s on node %s: %s", r.Status, r.Hop, r.Node, r.Cause)
		}
		return nil
	})
}
