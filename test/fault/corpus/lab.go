package corpus

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/certificate"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/ingress/door"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/snapshot"
)

// Namespace is where the corpus has its objects.
const Namespace = "corpus"

// Lab is a cluster with both ends of every path on each node.
type Lab struct {
	cluster *cluster.Cluster
	door    *door.Door
	roots   *x509.CertPool
	port    int // where servers listen
	nodes   []*node
	// before is how places were when nothing was broken.
	before map[string]snapshot.Snapshot
}

// node is one with what the corpus has there. Maps are by family.
type node struct {
	name           string
	number         int
	addrs          map[int]netip.Addr
	ranges         map[int]netip.Prefix
	mac            string
	client, server pod
	balancers      map[int]netip.Addr // addresses that somebody routes to another node
	vips, slices   map[int]netip.Addr // of the server's Services
}

type pod struct {
	name  string
	addrs map[int]netip.Addr
	netns string // file, on the node
	link  string // host end
	// process is the container's first.
	process int
}

// Open prepares a cluster for faults, with servers that listen at a port.
func Open(t testing.TB, c *cluster.Cluster, port int) *Lab {
	t.Helper()
	l := &Lab{cluster: c, port: port, before: map[string]snapshot.Snapshot{}}
	var err error
	if l.door, err = door.Install(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	l.kubectl(t, "delete", "namespace", Namespace, "--ignore-not-found")
	t.Cleanup(func() {
		if _, err := c.Kubectl(context.WithoutCancel(t.Context()), "delete", "namespace", Namespace); err != nil {
			t.Error(err)
		}
		for _, n := range l.nodes {
			live.Gone(t, c, n.name, n.client.netns, n.server.netns)
		}
	})
	l.kubectl(t, "create", "namespace", Namespace)
	l.readNodes(t)
	l.makePods(t)
	l.makeObjects(t)
	l.balance(t)
	return l
}

// balance is what a load balancer does: each Service of that type has an address
// that the network between the nodes routes to a node.
func (l *Lab) balance(t testing.TB) {
	t.Helper()
	for i, n := range l.nodes {
		n.balancers = map[int]netip.Addr{
			4: netip.MustParseAddr(fmt.Sprint("203.0.113.", n.number)), 6: netip.MustParseAddr(fmt.Sprint("2001:db8:113::", n.number)),
		}
		l.kubectl(t, "-n", Namespace, "patch", "service", fmt.Sprint("balanced-", n.number), "--subresource=status", "-p",
			fmt.Sprintf(`{"status":{"loadBalancer":{"ingress":[{"ip":"%s"},{"ip":"%s"}]}}}`, n.balancers[4], n.balancers[6]))
		to := l.nodes[(i+1)%len(l.nodes)]
		for f, a := range n.balancers {
			l.route(t, "replace", a, to.addrs[f])
			t.Cleanup(func() { l.route(t, "del", a, to.addrs[f]) })
		}
	}
}

// route changes a route of the network between the nodes.
func (l *Lab) route(t testing.TB, do string, to, via netip.Addr) {
	t.Helper()
	line := []string{"--net=" + l.cluster.UnderlayNamespace(), "ip", "route", do, to.String(), "via", via.String()}
	if out, err := exec.Command("nsenter", line...).CombinedOutput(); err != nil {
		t.Errorf("%v: %v: %s", line, err, out)
	}
}

func (l *Lab) kubectl(t testing.TB, args ...string) []byte {
	t.Helper()
	out, err := l.cluster.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (l *Lab) get(t testing.TB, into any, args ...string) {
	t.Helper()
	if err := json.Unmarshal(l.kubectl(t, append([]string{"get", "-o", "json"}, args...)...), into); err != nil {
		t.Fatal(err)
	}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 4
	}
	return 6
}

func (l *Lab) readNodes(t testing.TB) {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Addresses []struct{ Type, Address string }
			}
		}
	}
	var networks struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct {
				PodCIDRs []netip.Prefix
				VTEP     struct{ MAC string }
			}
		}
	}
	l.get(t, &list, "nodes")
	l.get(t, &networks, "nodenetworks")
	byName := map[string]*node{}
	for i, item := range list.Items {
		n := &node{name: item.Metadata.Name, number: i + 1, addrs: map[int]netip.Addr{}, ranges: map[int]netip.Prefix{}}
		for _, a := range item.Status.Addresses {
			if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == "InternalIP" {
				n.addrs[family(addr)] = addr
			}
		}
		byName[n.name] = n
		l.nodes = append(l.nodes, n)
	}
	for _, item := range networks.Items {
		n := byName[item.Metadata.Name]
		n.mac = item.Spec.VTEP.MAC
		for _, r := range item.Spec.PodCIDRs {
			n.ranges[family(r.Addr())] = r
		}
	}
}

// apply makes objects of a file of the corpus for each node.
func (l *Lab) apply(t testing.TB, name string) {
	t.Helper()
	var all strings.Builder
	for _, n := range l.nodes {
		all.WriteString(l.expand(t, name, n) + "\n---\n")
	}
	l.applyText(t, all.String())
}

func (l *Lab) applyText(t testing.TB, text string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l.kubectl(t, "apply", "-f", file)
}

// expand fills in a file of the corpus for one node.
func (l *Lab) expand(t testing.TB, name string, n *node) string {
	t.Helper()
	text, err := files.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return substitute(string(text), map[string]string{
		"N": strconv.Itoa(n.number), "PORT": strconv.Itoa(l.port), "FAR": n.name,
		"SERVER_4": n.server.addrs[4].String(), "SERVER_6": n.server.addrs[6].String(),
	})
}

// substitute replaces what it knows, and leaves shells' own variables alone.
func substitute(text string, values map[string]string) string {
	return os.Expand(text, func(name string) string {
		if v, known := values[name]; known {
			return v
		}
		return "$" + name
	})
}

func (l *Lab) makePods(t testing.TB) {
	t.Helper()
	l.apply(t, "pods.yaml")
	l.apply(t, "more.yaml")
	for _, n := range l.nodes {
		l.kubectl(t, "-n", Namespace, "patch", "pod", fmt.Sprint("web-", n.number), "--subresource=status", "-p",
			`{"status":{"conditions":[{"type":"corpus.poplin.dev/warm","status":"True"}]}}`)
	}
	l.kubectl(t, "-n", Namespace, "wait", "--for=condition=Ready", "pods", "--all", "--timeout=120s")
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct{ PodIPs []struct{ IP netip.Addr } }
		}
	}
	l.get(t, &list, "pods", "-n", Namespace)
	addrs := map[string]map[int]netip.Addr{}
	for _, item := range list.Items {
		addrs[item.Metadata.Name] = map[int]netip.Addr{}
		for _, ip := range item.Status.PodIPs {
			addrs[item.Metadata.Name][family(ip.IP)] = ip.IP
		}
	}
	for _, n := range l.nodes {
		n.client = l.findPod(t, n, fmt.Sprint("client-", n.number), addrs, "agnhost", "pause")
		n.server = l.findPod(t, n, fmt.Sprint("web-", n.number), addrs, "sh", "/tmp/real")
	}
}

// findPod looks for what the node has of a pod. The container's first process is
// a program with an argument.
func (l *Lab) findPod(t testing.TB, n *node, name string, addrs map[string]map[int]netip.Addr, program, argument string) pod {
	t.Helper()
	file := live.Namespace(t, l.cluster, n.name, addrs[name][4])
	p := pod{name: name, addrs: addrs[name], process: live.Process(t, file, program, argument)}
	_, p.netns, _ = strings.Cut(file, "/root")
	out, err := l.cluster.Exec(t.Context(), n.name, "ip", "-o", "route", "get", p.addrs[4].String())
	link := linkTo.FindSubmatch(out)
	if err != nil || link == nil || p.process == 0 {
		t.Fatalf("find pod %s on %s: process %d, %s, %v", name, n.name, p.process, out, err)
	}
	p.link = string(link[1])
	return p
}

var linkTo = regexp.MustCompile(` dev (\S+)`)

// makeObjects makes Services, slices and Ingresses, and Secrets of every kind.
func (l *Lab) makeObjects(t testing.TB) {
	t.Helper()
	var believed []*certificate.Certificate
	var secrets strings.Builder
	for _, n := range l.nodes {
		var made [4]*certificate.Certificate
		for i, of := range []struct {
			host string
			end  time.Duration
		}{{n.host(), time.Hour}, {n.host(), time.Hour}, {"other.example.com", time.Hour}, {n.host(), -time.Minute}} {
			c, err := certificate.Until(time.Now().Add(of.end), of.host)
			if err != nil {
				t.Fatal(err)
			}
			made[i] = c
			believed = append(believed, c)
		}
		good, copied, other, expired := made[0], made[1], made[2], made[3]
		mixed := &certificate.Certificate{PEM: good.PEM, Key: copied.Key}
		for name, c := range map[string]*certificate.Certificate{"good": good, "copy": copied, "other": other, "expired": expired, "mixed": mixed} {
			secrets.WriteString(c.Secret(Namespace, fmt.Sprint(name, "-", n.number)) + "\n---\n")
		}
	}
	l.roots = certificate.Roots(believed...)
	l.applyText(t, secrets.String())
	l.apply(t, "objects.yaml")
	for _, n := range l.nodes {
		n.vips, n.slices = l.clusterIPs(t, fmt.Sprint("web-", n.number)), l.clusterIPs(t, fmt.Sprint("slice-", n.number))
	}
}

func (n *node) host() string { return fmt.Sprintf("web-%d.example.com", n.number) }

func (l *Lab) clusterIPs(t testing.TB, service string) map[int]netip.Addr {
	t.Helper()
	var s struct {
		Spec struct{ ClusterIPs []netip.Addr }
	}
	l.get(t, &s, "-n", Namespace, "service", service)
	byFamily := map[int]netip.Addr{}
	for _, a := range s.Spec.ClusterIPs {
		byFamily[family(a)] = a
	}
	return byFamily
}
