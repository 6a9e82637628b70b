//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/ingress/door"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/thread"
	"poplin.dev/poplin/test/webapp"
)

// A host outside of the cluster sees the node's address, not the pod's.
func TestWhatLeavesTheClusterHasTheNodesAddress(t *testing.T) {
	c := deployed(t)
	outside := listenOutside(t, c)
	byName := map[string]node{}
	for _, n := range nodes(t, c) {
		byName[n.name] = n
	}
	for _, p := range example(t, c) {
		var urls []string
		for _, a := range outside {
			urls = append(urls, "http://"+a.String()+"/")
		}
		answers, err := webapp.Get(t.Context(), c.Kubectl, p.Name, urls)
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range answers {
			seen, err := netip.ParseAddrPort(a)
			if err != nil || !slices.Contains(byName[p.Node].addresses, seen.Addr().Unmap()) {
				t.Errorf("pod %s on %s reached %s as %q, want one of the node's addresses %v", p.Name, p.Node, outside[i], a, byName[p.Node].addresses)
			} else if seen.Port() <= 8472 {
				t.Errorf("pod %s got source port %d, which the overlay's port may be among", p.Name, seen.Port())
			}
		}
	}
}

// listenOutside answers HTTP in the underlay's namespace, on the nodes'
// gateway addresses, with the address the client is seen under.
func listenOutside(t *testing.T, c *cluster.Cluster) []netip.AddrPort {
	t.Helper()
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.RemoteAddr)
	})}
	t.Cleanup(func() { server.Close() })
	var at []netip.AddrPort
	for _, address := range []string{"172.30.0.1:0", "[fd00:30::1]:0"} {
		l, err := listenIn(c.UnderlayNamespace(), address)
		if err != nil {
			t.Fatal(err)
		}
		go server.Serve(l)
		at = append(at, l.Addr().(*net.TCPAddr).AddrPort())
	}
	return at
}

func listenIn(namespace, address string) (l net.Listener, err error) {
	err = thread.In(namespace, func() error {
		l, err = net.Listen("tcp", address)
		return err
	})
	return l, err
}

// A node reaches the pods of every node, and its own.
func TestNodesReachPods(t *testing.T) {
	c := deployed(t)
	for _, from := range c.Nodes() {
		for _, p := range example(t, c) {
			for _, ip := range p.IPs {
				url := fmt.Sprintf("http://%s/hostname", netip.AddrPortFrom(ip, webapp.Port))
				out, err := c.Exec(t.Context(), from, "curl", "-s", "-m", "5", url)
				if err != nil || string(out) != p.Name {
					t.Errorf("%s asked %s on %s at %s and got %q, %v", from, p.Name, p.Node, ip, out, err)
				}
			}
		}
	}
}

// The largest packet a pod may send arrives unfragmented on another node.
func TestLargestPacketPasses(t *testing.T) {
	c := deployed(t)
	pods := example(t, c)
	for _, p := range pods[1:] {
		for _, ip := range p.IPs {
			size := "1422" // MTU 1450 less the headers of IPv4 and ICMP
			if ip.Is6() {
				size = "1402"
			}
			out, err := c.Kubectl(t.Context(), "exec", pods[0].Name, "--", "ping", "-M", "do", "-c", "1", "-W", "5", "-s", size, ip.String())
			if err != nil {
				t.Errorf("%s -> %s at %s: %v\n%s", pods[0].Name, p.Name, ip, err, out)
			}
		}
	}
}

// The daemon's account may do what it must, and nothing else.
func TestDaemonsRights(t *testing.T) {
	c := shared(t)
	may := func(want string, args ...string) {
		t.Helper()
		out, _ := c.Kubectl(t.Context(), append([]string{"auth", "can-i", "--as=system:serviceaccount:poplin-system:poplind"}, args...)...)
		if got := strings.TrimSpace(string(out)); got != want {
			t.Errorf("may poplind %v? %q, want %q", args, got, want)
		}
	}
	may("yes", "watch", "nodenetworks.poplin.dev")
	may("yes", "update", "nodenetworks.poplin.dev")
	may("yes", "watch", "nodes")
	may("yes", "create", "events", "-n", "kube-system")
	may("no", "list", "events", "-n", "kube-system")
	may("no", "create", "tokenreviews.authentication.k8s.io")
	may("no", "delete", "nodenetworks.poplin.dev")
	may("no", "update", "nodes")
	may("no", "patch", "nodes")
	may("yes", "list", "pods", "-A") // for policies, whose selectors are about pods anywhere
	may("yes", "watch", "crd/clusternetworkpolicies.policy.networking.k8s.io")
	may("no", "list", "crd")
	may("no", "get", "pods", "-n", "kube-system")
	may("no", "list", "secrets", "-A")
	may("no", "get", "configmaps", "-n", "kube-system")
}

// Restarting every daemon disturbs no pod, and the kernel's state stays.
func TestDaemonsRestartUnnoticed(t *testing.T) {
	c := deployed(t)
	before := programmed(t, c)
	for _, args := range [][]string{
		{"-n", "poplin-system", "rollout", "restart", "daemonset/poplind"},
		{"-n", "poplin-system", "rollout", "status", "daemonset/poplind", "--timeout=90s"},
	} {
		if _, err := c.Kubectl(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	if after := programmed(t, c); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	reaches, err := webapp.Matrix(t.Context(), c.Kubectl, example(t, c))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reaches {
		if !r.OK() {
			t.Error(r)
		}
	}
}

// programmed is what the nodes' kernels hold of ours, but for pods' links.
func programmed(t *testing.T, c *cluster.Cluster) string {
	t.Helper()
	var all strings.Builder
	for _, n := range c.Nodes() {
		out, err := c.Exec(t.Context(), n, "sh", "-c",
			"ip -d link show poplin-vx; ip addr show poplin-vx; ip route show proto 157; ip -6 route show proto 157; ip neigh show dev poplin-vx nud permanent; bridge fdb show dev poplin-vx; nft list table inet poplin")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(out)) {
			if !strings.Contains(line, "plw") {
				all.WriteString(line)
			}
		}
	}
	return all.String()
}

// An IPv6-only cluster does the main job too.
func TestIPv6Only(t *testing.T) {
	six := live.Temporary(t, cluster.Options{Name: "e2e6", Nodes: 2, Family: "ipv6", Network: "poplin"})
	if err := deploy(t.Context(), six); err != nil {
		t.Fatal(err)
	}
	pods := example(t, six)
	reaches, err := webapp.Matrix(t.Context(), six.Kubectl, pods)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reaches {
		if !r.OK() || !r.Addr.Is6() {
			t.Error(r)
		}
	}
	servesAt(t, six, pods[0])
	d, err := door.Install(t.Context(), six)
	if err != nil {
		t.Fatal(err)
	}
	answersAtANodePort(t, d)
}
