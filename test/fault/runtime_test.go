//go:build e2e

package fault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/live"
)

// staticPod is a pod that the kubelet makes without asking the API server,
// from a file.
const staticPod = `
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  terminationGracePeriodSeconds: 0
  tolerations: [{operator: Exists}]
  containers:
    - {name: idle, image: "registry.k8s.io/pause:3.10.2", imagePullPolicy: IfNotPresent}
`

const manifests = "/etc/kubernetes/manifests/"

// start has a node's kubelet make a static pod, and returns its addresses.
func start(t testing.TB, c *cluster.Cluster, node, name string) []netip.Addr {
	t.Helper()
	live.Place(t, outside(t, c, node, manifests+name+".yaml"), fmt.Appendf(nil, staticPod, name))
	t.Cleanup(func() { stop(t, c, node, name) })
	return addressesOf(t, c, node, name)
}

// stop ends a static pod, and waits until it has no address any more.
func stop(t testing.TB, c *cluster.Cluster, node, name string) {
	t.Helper()
	if err := os.Remove(outside(t, c, node, manifests+name+".yaml")); os.IsNotExist(err) {
		return
	} else if err != nil {
		t.Fatal(err)
	}
	await.Success(t, 2*time.Minute, func() error {
		if addrs, err := attached(context.WithoutCancel(t.Context()), c, node, name); err != nil || len(addrs) > 0 {
			return fmt.Errorf("pod %s still has %v, %v", name, addrs, err)
		}
		return nil
	})
}

func addressesOf(t testing.TB, c *cluster.Cluster, node, name string) (addrs []netip.Addr) {
	t.Helper()
	await.Success(t, 2*time.Minute, func() (err error) {
		if addrs, err = attached(t.Context(), c, node, name); err == nil && len(addrs) < 2 {
			err = fmt.Errorf("pod %s on %s has addresses %v", name, node, addrs)
		}
		return err
	})
	return addrs
}

var podRoute = regexp.MustCompile(`(?m)^([0-9a-f.:]+) dev`)

// attached are the addresses that the node's kernel has for one of its pods.
func attached(ctx context.Context, c *cluster.Cluster, node, name string) (addrs []netip.Addr, err error) {
	out, err := c.Exec(ctx, node, "sh", "-c", `
		link=$(ip -o link show group 0x706c | grep "alias [a-z]*:default/`+name+`[^ ]*" | sed 's/^[0-9]*: \([^@:]*\).*/\1/')
		[ -z "$link" ] || { ip route show proto 157 | grep "dev $link"; ip -6 route show proto 157 | grep "dev $link"; }`)
	if err != nil {
		return nil, err
	}
	for _, m := range podRoute.FindAllStringSubmatch(string(out), -1) {
		addr, err := netip.ParseAddr(m[1])
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

func outside(t testing.TB, c *cluster.Cluster, node, path string) string {
	t.Helper()
	seen, err := c.Path(node, path)
	if err != nil {
		t.Fatal(err)
	}
	return seen
}

// onNode runs plugins on a node for the CNI library.
type onNode struct {
	version.PluginDecoder
	c    *cluster.Cluster
	node string
}

func (n *onNode) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var cni []string
	for _, e := range environ {
		if strings.HasPrefix(e, "CNI_") {
			cni = append(cni, e)
		}
	}
	cmd, err := n.c.Command(ctx, n.node, append(append([]string{"env"}, cni...), path)...)
	if err != nil {
		return nil, err
	}
	cmd.Stdin = bytes.NewReader(stdin)
	out, err := cmd.Output()
	if e := new(exec.ExitError); errors.As(err, &e) {
		return nil, fmt.Errorf("%s: %s %s", path, out, e.Stderr)
	}
	return out, err
}

func (n *onNode) FindInPath(plugin string, paths []string) (string, error) {
	return filepath.Join(paths[0], plugin), nil
}

// library is libcni with a node's conflist and plugin, as another runtime
// beside containerd would use them.
type library struct {
	t    testing.TB
	c    *cluster.Cluster
	node string
	cni  *libcni.CNIConfig
	list *libcni.NetworkConfigList
}

func newLibrary(t testing.TB, c *cluster.Cluster, node string) *library {
	t.Helper()
	list, err := libcni.ConfListFromFile(outside(t, c, node, "/etc/cni/net.d/10-poplin.conflist"))
	if err != nil {
		t.Fatal(err)
	}
	return &library{t, c, node, libcni.NewCNIConfigWithCacheDir([]string{"/opt/cni/bin"}, t.TempDir(), &onNode{c: c, node: node}), list}
}

// addAndDelete makes a sandbox with an address, and removes it.
func (l *library) addAndDelete(name string) {
	l.t.Helper()
	on(l.t, l.c, l.node, "ip", "netns", "add", name)
	defer on(l.t, l.c, l.node, "ip", "netns", "delete", name)
	sandbox := &libcni.RuntimeConf{ContainerID: name, NetNS: "/run/netns/" + name, IfName: "eth0"}
	if _, err := l.cni.AddNetworkList(l.t.Context(), l.list, sandbox); err != nil {
		l.t.Fatal(err)
	}
	if err := l.cni.CheckNetworkList(l.t.Context(), l.list, sandbox); err != nil {
		l.t.Error(err)
	}
	if err := l.cni.DelNetworkList(l.t.Context(), l.list, sandbox); err != nil {
		l.t.Error(err)
	}
}
