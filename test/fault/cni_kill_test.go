package fault

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"poplin.dev/poplin/test/cni"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/soak"
)

// plugged is a node with the plugin, and a network whose ranges have that
// IPv4 subnet.
func plugged(t *testing.T, subnet string) (n *cni.Node, conf string, list *libcni.NetworkConfigList) {
	t.Helper()
	need.Root(t)
	need.Link(t, "veth")
	bin := t.TempDir()
	if err := cni.Build(bin, "cmd/poplin"); err != nil {
		t.Fatal(err)
	}
	n, err := cni.NewNode(t.TempDir(), bin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	conf = fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","type":"poplin","mtu":1450,"stateDir":%q,"capabilities":{"portMappings":true},`+
		`"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":%q}],[{"subnet":"fd00:10:244:1::/64"}]]}}`, n.Dir+"/state", n.Dir+"/ipam", subnet)
	if list, err = cni.List(conf); err != nil {
		t.Fatal(err)
	}
	return n, conf, list
}

func sandbox(t *testing.T, id string) *cni.Pod {
	t.Helper()
	p, err := cni.NewPod(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// permission is a socket at which every pod is told that policies hold for it.
func permission(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "poplind.sock")
	l, err := net.Listen("unix", socket)
	ok(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Close() })
	return socket
}

// TestCNIKilledAtEveryStep kills ADD, and DEL, of a pod with a host port, which
// waits for its policies, before each system call that could leave something. Whatever comes next puts it right. Without
// POPLIN_SOAK each of four next things is tried at every fourth step.
func TestCNIKilledAtEveryStep(t *testing.T) {
	for i, next := range []struct {
		name string
		heal func(*testing.T, *cni.Node, *libcni.NetworkConfigList, *cni.Pod)
	}{
		{"DEL", func(t *testing.T, n *cni.Node, l *libcni.NetworkConfigList, p *cni.Pod) { ok(t, n.Del(l, p)) }},
		{"GC", func(t *testing.T, n *cni.Node, l *libcni.NetworkConfigList, _ *cni.Pod) { ok(t, n.GC(l)) }},
		{"ADD of another, then GC", func(t *testing.T, n *cni.Node, l *libcni.NetworkConfigList, p *cni.Pod) {
			other := sandbox(t, p.ID+"-next")
			_, err := n.Add(l, other)
			ok(t, err)
			ok(t, n.GC(l, other))
			ok(t, n.Check(l, other))
			ok(t, n.Del(l, other))
		}},
		{"ADD again, if there is no link", func(t *testing.T, n *cni.Node, l *libcni.NetworkConfigList, p *cni.Pod) {
			if _, err := n.Add(l, p); err == nil {
				ok(t, n.Check(l, p))
			} else if !strings.Contains(err.Error(), "host link plw") {
				t.Error(err)
			}
			ok(t, n.Del(l, p))
		}},
	} {
		t.Run(next.name, func(t *testing.T) {
			subnet, size := "10.244.1.0/28", 13
			if soak.Full() {
				subnet, size = "10.244.1.0/24", 253
			}
			n, conf, list := plugged(t, subnet)
			ports := strings.TrimSuffix(conf, "}") + fmt.Sprintf(`,"policy":{"socket":%q},`, permission(t)) +
				`"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"udp"}]}}`
			// The node's first ADD has more steps; it is killed at these below.
			first := sandbox(t, "first")
			_, err := n.Add(list, first)
			ok(t, err)
			ok(t, n.Del(list, first))
			begin, stride := i+1, 4
			if soak.Full() {
				begin, stride = 1, 1
			}
			steps := 0
			for _, command := range []string{"ADD", "DEL"} {
				for step, killed := begin, true; killed; step += stride {
					p := sandbox(t, fmt.Sprintf("%s-%d", command, step))
					if command == "DEL" {
						p.Capabilities = map[string]any{"portMappings": []map[string]any{{"hostPort": 8080, "containerPort": 80, "protocol": "udp"}}}
						_, err := n.Add(list, p)
						ok(t, err)
						if got := strings.Join(leftovers(t, n), ", "); !strings.Contains(got, "host port") || !strings.Contains(got, "nftables") {
							t.Fatalf("the pod has no host port that could be left: %s", got)
						}
						ok(t, n.Forget("pods", p))
						p.Capabilities = nil
					}
					var err error
					killed, err = n.ExecKilledAt(step, "poplin", ports,
						"CNI_COMMAND="+command, "CNI_CONTAINERID="+p.ID, "CNI_NETNS="+p.Path(), "CNI_IFNAME=eth0",
						"CNI_ARGS=K8S_POD_NAMESPACE=default;K8S_POD_NAME="+p.ID)
					ok(t, err)
					next.heal(t, n, list, p)
					if got := leftovers(t, n); len(got) > 0 {
						t.Fatalf("%s killed at step %d, then %s: there is left %v", command, step, next.name, got)
					}
					p.Close()
					steps++
				}
			}
			t.Logf("%d steps", steps)
			if steps*stride < 80 {
				t.Errorf("%d of ADD's and DEL's steps: there are more", steps)
			}
			fill(t, n, list, size)
		})
	}
}

// fill attaches as many pods as a range has addresses, then one too many.
func fill(t *testing.T, n *cni.Node, l *libcni.NetworkConfigList, size int) {
	t.Helper()
	all := make([]*cni.Pod, size)
	for i := range all {
		all[i] = sandbox(t, fmt.Sprintf("fill-%d", i))
		if _, err := n.Add(l, all[i]); err != nil {
			t.Fatalf("pod %d of %d: %v", i+1, size, err)
		}
	}
	if _, err := n.Add(l, sandbox(t, "too-many")); err == nil || !strings.Contains(err.Error(), "no free address") {
		t.Errorf("one pod more than the range has addresses: %v", err)
	}
	for _, p := range all {
		ok(t, n.Del(l, p))
	}
	if got := leftovers(t, n); len(got) > 0 {
		t.Errorf("there is left %v", got)
	}
}

// together runs f for all pods at once, and wants every address given once.
func together(t *testing.T, pods []*cni.Pod, f func(*cni.Pod) error) {
	t.Helper()
	errs := make([]error, len(pods))
	var wg sync.WaitGroup
	for i, p := range pods {
		wg.Go(func() { errs[i] = f(p) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("pod %s: %v", pods[i].ID, err)
		}
	}
}

// attach adds pods at once and wants every address given once.
func attach(t *testing.T, n *cni.Node, l *libcni.NetworkConfigList, pods []*cni.Pod) {
	t.Helper()
	var mu sync.Mutex
	given := map[string]string{}
	together(t, pods, func(p *cni.Pod) error {
		r, err := n.Add(l, p)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		for _, ip := range r.IPs {
			if other := given[ip.Address.String()]; other != "" {
				t.Errorf("%s and %s have %s", other, p.ID, ip.Address.String())
			}
			given[ip.Address.String()] = p.ID
		}
		return nil
	})
	if len(given) != 2*len(pods) {
		t.Errorf("%d addresses for %d pods", len(given), len(pods))
	}
}

// TestCNI200AtOnce adds 200 pods at once, then deletes them while as many come
// in their place, as far as a /24 holds both.
func TestCNI200AtOnce(t *testing.T) {
	n, _, list := plugged(t, "10.244.1.0/24")
	old, fresh := make([]*cni.Pod, 200), make([]*cni.Pod, 50)
	for i := range old {
		old[i] = sandbox(t, fmt.Sprintf("old-%d", i))
	}
	for i := range fresh {
		fresh[i] = sandbox(t, fmt.Sprintf("new-%d", i))
	}
	attach(t, n, list, old)
	var wg sync.WaitGroup
	wg.Go(func() { together(t, old, func(p *cni.Pod) error { return n.Del(list, p) }) })
	wg.Go(func() { attach(t, n, list, fresh) })
	wg.Wait()
	together(t, fresh, func(p *cni.Pod) error { return n.Check(list, p) })
	together(t, fresh, func(p *cni.Pod) error { return n.Del(list, p) })
	if got := leftovers(t, n); len(got) > 0 {
		t.Errorf("there is left %v", got)
	}
	fill(t, n, list, 253)
}

// TestCNIReboot: 110 pods are gone with the node's kernel, without a DEL. All
// come again, in a range that has room for them once.
func TestCNIReboot(t *testing.T) {
	n, _, list := plugged(t, "10.244.1.0/25") // 125 addresses
	make110 := func(name string) (pods []*cni.Pod) {
		for i := range 110 {
			pods = append(pods, sandbox(t, fmt.Sprintf("%s-%d", name, i)))
		}
		return pods
	}
	before := make110("before")
	attach(t, n, list, before)
	// What a reboot leaves: files, of another boot, and no link.
	for _, p := range before {
		link, err := p.Link.LinkByName("eth0")
		ok(t, err)
		ok(t, p.Link.LinkDel(link))
		p.Close()
		ok(t, n.Forget("pods", p))
	}
	const boot = "/ipam/.poplin/pods/boot"
	if got, err := os.ReadFile(n.Dir + boot); err != nil || len(got) != 36 {
		t.Fatalf("boot is %q, %v", got, err)
	}
	ok(t, os.WriteFile(n.Dir+boot, []byte("00000000-0000-4000-8000-000000000000"), 0o600))

	ok(t, n.Status(list))
	after := make110("after")
	attach(t, n, list, after)
	together(t, after, func(p *cni.Pod) error { return n.Check(list, p) })
	together(t, after, func(p *cni.Pod) error { return n.Del(list, p) })
	if got := leftovers(t, n); len(got) > 0 {
		t.Errorf("there is left %v", got)
	}
}
