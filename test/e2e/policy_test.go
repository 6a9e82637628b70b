//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/ingress/traffic"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/load"
	"poplin.dev/poplin/test/webapp"
)

// meetings are policies of one pod and who then reaches what in the cluster:
// "friend>service friend" is an answer by the server, which saw the friend's
// address; "-" is none. Every denial stands beside something allowed.
var meetings = []struct{ what, about, says, asked string }{
	{"a Service's addresses", "server", from(byRole("friend")),
		"friend>server friend, friend>service friend, stranger>server -, stranger>service -, near>service -, friend>balancer -"},
	{"what leads to a balancer is masqueraded", "server", from(block("tunnel-1")), "friend>balancer tunnel-1, friend>service -, stranger>balancer -"},
	{"a headless Service's name", "server", from(byRole("friend")), "friend>name friend, stranger>name -"},
	{"ports are those of endpoints", "friend", `{policyTypes: [Egress], egress: [{ports: [{port: 8080}]}]}`,
		"friend>service friend, friend>server friend, friend>host-3 -"},
	{"and not those of Services", "friend", `{policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}`,
		"friend>service -, stranger>service stranger"},
	// What the server sees of them, a masquerade has changed since.
	{"clients at the endpoint's own node are themselves", "server", from(block("lan")),
		"lan>node-2:port node-2|tunnel-2, lan>node-2:local lan, lan>node-2:host lan, lan>node-1:port -, friend>server -"},
	{"those that come through another node are that node", "server", from(block("tunnel-1")),
		"lan>node-1:port tunnel-1, lan>node-2:port -, lan>node-2:local -"},
	{"pods that use a port of another node are masqueraded there", "server", from(block("node-1")),
		"friend>node-2:port node-2|tunnel-2, friend>node-2:host node-1, friend>server -, friend>service -"},
	{"and not at their own", "server", from(byRole("near")),
		"near>node-2:port node-2|tunnel-2, near>node-2:host near, friend>node-2:port -, friend>node-2:host -"},
	{"pods in the network of their node are the node", "server", from(byRole("friend")),
		"node-1>server -, node-1>service -, friend>server friend"},
	{"which a block finds", "server", from(block("tunnel-1")), "node-1>server tunnel-1, node-1>service tunnel-1, friend>server -"},
	{"a node and its own pods", "server", `{policyTypes: [Ingress, Egress]}`,
		"node-2>server node-2, node-1>server -, server>host-2 server, server>host-3 -"},
	{"a pod and itself", "server", `{policyTypes: [Ingress, Egress]}`,
		"server>server server, server>service node-2|tunnel-2, near>server -, server>near -"},
	{"servers in the network of a node", "friend", `{policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {role: host}}}]}]}`,
		"friend>host-3 -, friend>host-1 friend, stranger>host-1 node-3"},
	{"which a block finds as well", "friend", to(block("node-3")), "friend>host-3 node-1, friend>server -"},
}

func from(peers ...string) string {
	return fmt.Sprintf("{policyTypes: [Ingress], ingress: [{from: [%s]}]}", strings.Join(peers, ", "))
}

func to(peers ...string) string {
	return fmt.Sprintf("{policyTypes: [Egress], egress: [{to: [%s]}]}", strings.Join(peers, ", "))
}

func byRole(role string) string { return "{podSelector: {matchLabels: {role: " + role + "}}}" }

// block is both addresses of a place; newMesh knows them.
func block(place string) string {
	return fmt.Sprintf(`{ipBlock: {cidr: "%[1]s.0"}}, {ipBlock: {cidr: "%[1]s.1"}}`, "@"+place)
}

// Of the pods, friend, server and stranger are on a node each, near is beside
// the server, and each node has one in its own network.
const meshObjects = `
apiVersion: v1
kind: Service
metadata: {name: mesh}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  selector: {role: server}
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30900}]
---
apiVersion: v1
kind: Service
metadata: {name: mesh-local}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  ipFamilyPolicy: RequireDualStack
  selector: {role: server}
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30901}]
---
apiVersion: v1
kind: Service
metadata: {name: mesh-headless}
spec:
  clusterIP: None
  ipFamilyPolicy: RequireDualStack
  selector: {role: server}
  ports: [{name: http, port: 8080}]
`

const meshPod = `
---
apiVersion: v1
kind: Pod
metadata: {name: mesh-%[1]s, labels: {role: %[2]s, mesh: "yes"}}
spec:
  nodeName: worker-%[3]d
  hostNetwork: %[4]v
  terminationGracePeriodSeconds: 0
  tolerations: [{operator: Exists}]
  containers:
    - name: web
      image: registry.k8s.io/e2e-test-images/agnhost:2.63.0
      imagePullPolicy: IfNotPresent
      args: [netexec, --http-port=%[5]d, --udp-port=%[5]d]
      ports: [{containerPort: %[5]d%[6]s}]
      readinessProbe: {httpGet: {path: /healthz, port: %[5]d}, periodSeconds: 1}
      livenessProbe: {httpGet: {path: /healthz, port: %[5]d}, periodSeconds: 1, timeoutSeconds: 3, failureThreshold: 3}
`

var meshPods = []struct {
	name, role string
	node       int
	host       bool
}{
	{"friend", "friend", 1, false}, {"server", "server", 2, false}, {"near", "near", 2, false}, {"stranger", "stranger", 3, false},
	{"host-1", "host", 1, true}, {"host-2", "host", 2, true}, {"host-3", "host", 3, true},
}

const podPort, hostNetworkPort, meshHostPort = 8080, 18080, 30902

// mesh is where things are, by name; each of both families has an address.
type mesh struct {
	c      *cluster.Cluster
	places map[string]load.Place
	addrs  map[string][2]netip.AddrPort
	names  map[netip.Addr]string
}

func newMesh(t *testing.T) *mesh {
	t.Helper()
	m := &mesh{c: shared(t), places: map[string]load.Place{}, addrs: map[string][2]netip.AddrPort{}, names: map[netip.Addr]string{}}
	manifest := meshObjects
	for _, p := range meshPods {
		port, hostPort := podPort, ""
		if p.host {
			port = hostNetworkPort
		} else if p.name == "server" {
			hostPort = fmt.Sprint(", hostPort: ", meshHostPort)
		}
		manifest += fmt.Sprintf(meshPod, p.name, p.role, p.node, p.host, port, hostPort)
	}
	m.apply(t, manifest)
	m.kubectl(t, "wait", "pod", "-l", "mesh=yes", "--for=condition=Ready", "--timeout=120s")
	m.kubectl(t, "patch", "service", "mesh", "--subresource=status", "--patch",
		`{"status":{"loadBalancer":{"ingress":[{"ip":"203.0.113.77"},{"ip":"2001:db8:99::77"}]}}}`)
	at := func(name string, port uint16, addrs ...netip.Addr) {
		if addrs[0].Is6() {
			addrs[0], addrs[1] = addrs[1], addrs[0]
		}
		m.addrs[name] = [2]netip.AddrPort{netip.AddrPortFrom(addrs[0], port), netip.AddrPortFrom(addrs[1], port)}
	}
	for _, n := range nodes(t, m.c) {
		name := strings.Replace(n.name, "worker", "node", 1)
		at(name, 0, n.addresses...)
		at("tunnel"+name[len("node"):], 0, n.podCIDRs[0].Addr(), n.podCIDRs[1].Addr())
		for kind, port := range map[string]uint16{"port": 30900, "local": 30901, "host": meshHostPort} {
			at(name+":"+kind, port, n.addresses...)
		}
		at("host"+name[len("node"):], hostNetworkPort, n.addresses...)
		m.places[name] = load.In(m.c.Namespace(n.name))
	}
	at("lan", 0, netip.MustParseAddr("172.30.0.1"), netip.MustParseAddr("fd00:30::1"))
	m.places["lan"] = load.In(m.c.UnderlayNamespace())
	at("balancer", 80, netip.MustParseAddr("203.0.113.77"), netip.MustParseAddr("2001:db8:99::77"))
	at("service", 80, parse(t, m.kubectl(t, "get", "service", "mesh", "-o", "jsonpath={.spec.clusterIPs[*]}"))...)
	pods, err := webapp.Pods(t.Context(), m.c.Kubectl, "mesh=yes,role!=host")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pods {
		name := strings.TrimPrefix(p.Name, "mesh-")
		at(name, podPort, p.IPs...)
		m.places[name] = live.Pod(t, m.c, p.Node, p.IPs[0])
	}
	for _, p := range []string{"friend", "server", "near", "stranger", "lan", "node-1", "node-2", "node-3", "tunnel-1", "tunnel-2", "tunnel-3"} {
		for _, a := range m.addrs[p] {
			m.names[a.Addr()] = p
		}
	}
	return m
}

func parse(t *testing.T, text string) (list []netip.Addr) {
	t.Helper()
	for _, f := range strings.Fields(text) {
		a, err := netip.ParseAddr(f)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, a)
	}
	return list
}

func (m *mesh) kubectl(t *testing.T, args ...string) string {
	t.Helper()
	out, err := m.c.Kubectl(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// apply makes objects for the time of a test.
func (m *mesh) apply(t *testing.T, manifest string) {
	t.Helper()
	file := t.TempDir() + "/objects.yaml"
	if err := os.WriteFile(file, []byte(manifest), 0o600); err != nil {
		t.Fatal(err)
	}
	m.kubectl(t, "apply", "-f", file)
	t.Cleanup(func() {
		if _, err := m.c.Kubectl(context.WithoutCancel(t.Context()), "delete", "--ignore-not-found", "-f", file); err != nil {
			t.Error(err)
		}
	})
}

// enforce makes the policy of a pod.
func (m *mesh) enforce(t *testing.T, about, says string) {
	t.Helper()
	for name, addrs := range m.addrs {
		for i, a := range addrs {
			says = strings.ReplaceAll(says, fmt.Sprintf(`"@%s.%d"`, name, i), fmt.Sprintf(`"%s/%d"`, a.Addr(), a.Addr().BitLen()))
		}
	}
	spec := strings.Replace(says, "{", "{podSelector: {matchLabels: {role: "+about+"}}, ", 1)
	m.apply(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: mesh}\nspec: "+spec+"\n")
}

// target is what a name stands for in one family, as a place sees it.
func (m *mesh) target(ctx context.Context, from load.Place, name string, family int) (netip.AddrPort, error) {
	if name != "name" {
		return m.addrs[name][family], nil
	}
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dial(ctx, from, network, "10.96.0.10:53")
	}}
	list, err := r.LookupNetIP(ctx, []string{"ip4", "ip6"}[family], "mesh-headless.default.svc.cluster.local.")
	if err != nil {
		return netip.AddrPort{}, err
	}
	return netip.AddrPortFrom(list[0].Unmap(), podPort), nil
}

func dial(ctx context.Context, from load.Place, network, to string) (conn net.Conn, err error) {
	err = from(func() error {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, to)
		return err
	})
	return conn, err
}

// sees is under whose address the server sees a client; "-" is no answer.
func (m *mesh) sees(ctx context.Context, from load.Place, to netip.AddrPort) string {
	ctx, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return dial(ctx, from, network, address)
	}}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+to.String()+"/clientip", nil)
	if err != nil {
		return err.Error()
	}
	response, err := client.Do(request)
	if err != nil {
		return "-"
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	seen, err := netip.ParseAddrPort(string(body))
	if err != nil {
		return fmt.Sprintf("answer %q", body)
	}
	if name, known := m.names[seen.Addr().Unmap()]; known {
		return name
	}
	return seen.Addr().String()
}

// TestPoliciesMeetTheRest: what policies mean for everything else by which
// connections come to a pod, on a real cluster and in both families. Meanwhile
// the kubelet's probes never fail.
func TestPoliciesMeetTheRest(t *testing.T) {
	m := newMesh(t)
	for _, row := range meetings {
		t.Run(row.what, func(t *testing.T) {
			m.enforce(t, row.about, row.says)
			for part := range strings.SplitSeq(row.asked, ",") {
				what, want, _ := strings.Cut(strings.TrimSpace(part), " ")
				from, to, _ := strings.Cut(what, ">")
				for family := range 2 {
					await.Success(t, 20*time.Second, func() error {
						place := m.places[from]
						target, err := m.target(t.Context(), place, to, family)
						if err != nil {
							return err
						}
						if got := m.sees(t.Context(), place, target); !slices.Contains(strings.Split(want, "|"), got) {
							return fmt.Errorf("%s (%s) is seen as %s, want %s", what, target, got, want)
						}
						return nil
					})
				}
			}
		})
	}
	t.Run("whose rule decides", m.explained)
	restarts := m.kubectl(t, "get", "pods", "-l", "mesh=yes", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}")
	if strings.Trim(restarts, "0 ") != "" {
		t.Errorf("the kubelet's probes failed: containers restarted %s times", restarts)
	}
}

// TestPoliciesMeetTheIngress: the Ingress controller's pods are clients like
// others, and those behind it are not seen by policies.
func TestPoliciesMeetTheIngress(t *testing.T) {
	c, d := entrance(t)
	m := &mesh{c: c}
	client := traffic.Client(d.Dial, nil, false)
	answers := func(t *testing.T, want string) {
		t.Helper()
		await.Success(t, time.Minute, func() error {
			if got := traffic.Get(client, "http://"+host+"/hostname"); !strings.HasPrefix(got, want) {
				return fmt.Errorf("%s answered %q, want %s", host, got, want)
			}
			return nil
		})
	}
	enforce := func(t *testing.T, peer string) {
		m.apply(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web}\nspec: {podSelector: {matchLabels: {app: web-app}}, policyTypes: [Ingress], ingress: [{from: ["+peer+"]}]}\n")
	}
	answers(t, "200 web-app-")
	t.Run("who is behind it does not count", func(t *testing.T) {
		enforce(t, `{ipBlock: {cidr: 172.30.0.1/32}}, {ipBlock: {cidr: "fd00:30::1/128"}}`)
		answers(t, "50")
	})
	t.Run("its own pods do", func(t *testing.T) {
		enforce(t, "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: poplin-system}}}")
		answers(t, "200 web-app-")
	})
}
