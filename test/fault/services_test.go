//go:build e2e

package fault

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"

	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/ingress/door"
	web "poplin.dev/poplin/test/ingress/traffic"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/load"
	"poplin.dev/poplin/test/soak"
	"poplin.dev/poplin/test/webapp"
)

// Two Services with the same pods, whose servers tell them apart by the port.
// Every way into the first is used, and one into the second.
const (
	waysPort, otherPort = 7000, 7001
	waysNodePort        = 30700
)

// balanced and external are addresses of the first Service from outside, which
// the LAN routes to the victim and the cluster's configuration allows.
var (
	routed   = []string{"203.0.113.0/24", "2001:db8:99::/64"}
	balanced = []string{"203.0.113.10", "2001:db8:99::10"}
	external = []string{"203.0.113.20", "2001:db8:99::20"}
)

const services = `
apiVersion: v1
kind: Service
metadata: {name: ways}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  externalIPs: ["203.0.113.20", "2001:db8:99::20"]
  selector: {app: load}
  ports:
    - {name: tcp, protocol: TCP, port: 7000, nodePort: 30700}
    - {name: udp, protocol: UDP, port: 7000, nodePort: 30700}
---
apiVersion: v1
kind: Service
metadata: {name: other}
spec:
  ipFamilyPolicy: RequireDualStack
  selector: {app: load}
  ports:
    - {name: tcp, protocol: TCP, port: 7001}
    - {name: udp, protocol: UDP, port: 7001}
`

// entrances is the two Services, their servers, and where clients are.
type entrances struct {
	c       *cluster.Cluster
	inside  webapp.Pod // of the victim
	servers map[int][]*load.Server
	cluster map[string][]netip.Addr // cluster addresses
}

func newEntrances(t *testing.T) *entrances {
	t.Helper()
	c := shared(t)
	routeOutside(t, c)
	all := pods(t, c)
	e := &entrances{c: c, inside: all[victim], servers: map[int][]*load.Server{}, cluster: map[string][]netip.Addr{}}
	for node, p := range all {
		for _, ip := range p.IPs {
			for _, port := range []int{waysPort, otherPort} {
				e.servers[port] = append(e.servers[port], load.Listen(t, live.Pod(t, c, node, ip), netip.AddrPortFrom(ip, uint16(port))))
			}
		}
	}
	apply(t, c, services)
	run(t, c, "patch", "service", "ways", "--subresource=status", "--patch",
		fmt.Sprintf(`{"status":{"loadBalancer":{"ingress":[{"ip":%q},{"ip":%q}]}}}`, balanced[0], balanced[1]))
	for _, name := range []string{"ways", "other"} {
		for _, text := range strings.Fields(run(t, c, "get", "service", name, "-o", "jsonpath={.spec.clusterIPs[*]}")) {
			e.cluster[name] = append(e.cluster[name], netip.MustParseAddr(text))
		}
	}
	return e
}

// addresses are a node's InternalIPs.
func addresses(t *testing.T, c *cluster.Cluster, node string) (list []netip.Addr) {
	t.Helper()
	for _, text := range strings.Fields(run(t, c, "get", "node", node, "-o", `jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`)) {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

// routeOutside leads the addresses of the Service to the victim.
func routeOutside(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	route := func(verb, to string, via netip.Addr) error {
		return load.In(c.UnderlayNamespace())(func() error {
			out, err := exec.Command("ip", "route", verb, to, "via", via.String()).CombinedOutput()
			if err != nil {
				return fmt.Errorf("ip route %s %s via %s: %w: %s", verb, to, via, err, out)
			}
			return nil
		})
	}
	for i, via := range addresses(t, c, victim) {
		if err := route("replace", routed[i], via); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := route("del", routed[i], via); err != nil {
				t.Error(err)
			}
		})
	}
}

// use sends through each way, from a pod of the victim and from outside.
func (e *entrances) use(t *testing.T) traffic {
	t.Helper()
	lan := load.In(e.c.UnderlayNamespace())
	nodes := addresses(t, e.c, victim)
	var all traffic
	for i, ip := range e.inside.IPs {
		pod := live.Pod(t, e.c, victim, ip)
		for _, way := range []struct {
			from load.Place
			to   string
			port uint16
		}{
			{pod, e.cluster["ways"][i].String(), waysPort},
			{lan, nodes[i].String(), waysNodePort},
			{lan, balanced[i], waysPort},
			{lan, external[i], waysPort},
		} {
			all = append(all, load.Gently(t, way.from, netip.AddrPortFrom(netip.MustParseAddr(way.to), way.port), e.servers[waysPort]...))
		}
	}
	pod := live.Pod(t, e.c, victim, e.inside.IPs[0])
	return append(all, load.Gently(t, pod, netip.AddrPortFrom(e.cluster["other"][0], otherPort), e.servers[otherPort]...))
}

// holds stops the loads: nothing is lost, and nothing came to another Service.
func (e *entrances) holds(t *testing.T, all traffic) {
	t.Helper()
	all.lossless(t)
	for _, servers := range e.servers {
		load.Apart(t, servers, all...)
	}
}

// TestServicesLoseNothing: whatever happens to the daemon of a node, to its
// rules and to other Services, each way into a Service of it goes on.
func TestServicesLoseNothing(t *testing.T) {
	e := newEntrances(t)
	crowded := fault{"unrelated Services added", 10, func(t *testing.T, n int) { crowd(t, e.c, n) }}
	for _, fault := range append(daemonFaults(t, e.c), crowded) {
		t.Run(fault.name, func(t *testing.T) {
			all := e.use(t)
			all.after(50)
			for n := range soak.Times(fault.times) {
				fault.do(t, n)
				all.after(50)
			}
			e.holds(t, all)
		})
	}
}

// crowd adds a thousand Services with an endpoint each.
func crowd(t *testing.T, c *cluster.Cluster, n int) {
	t.Helper()
	client, err := c.API()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	space := fmt.Sprint("crowd-", n)
	type object = map[string]any
	if err := client.Send(t.Context(), http.MethodPost, "/api/v1/namespaces", object{"metadata": object{"name": space}}, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if out, err := c.Kubectl(context.WithoutCancel(t.Context()), "delete", "namespace", space); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	})
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(8)
	for i := range 1000 {
		name := fmt.Sprint("s-", i)
		g.Go(func() error {
			ports := []object{{"name": "http", "port": 80, "protocol": "TCP"}}
			if err := client.Send(ctx, http.MethodPost, "/api/v1/namespaces/"+space+"/services",
				object{"metadata": object{"name": name}, "spec": object{"ports": ports}}, nil); err != nil {
				return err
			}
			return client.Send(ctx, http.MethodPost, "/apis/discovery.k8s.io/v1/namespaces/"+space+"/endpointslices", object{
				"metadata":    object{"name": name, "labels": object{"kubernetes.io/service-name": name}},
				"addressType": "IPv4", "ports": ports,
				"endpoints": []object{{"addresses": []string{fmt.Sprintf("192.0.2.%d", 1+i%250)}}},
			}, nil)
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// TestRollingUpdateFailsNothing: a backend with readiness and a graceful end is
// replaced, and no request fails, neither a pod's to the cluster address nor
// one from outside to a node port.
func TestRollingUpdateFailsNothing(t *testing.T) {
	c := shared(t)
	client := pods(t, c)[victim]
	if err := door.LoadBackend(t.Context(), c, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	apply(t, c, rolling)
	run(t, c, "rollout", "status", "deployment/rolling", "--timeout=90s")
	var loads []*web.Load
	for i, address := range strings.Fields(run(t, c, "get", "service", "rolling", "-o", "jsonpath={.spec.clusterIPs[*]}")) {
		for _, way := range []struct {
			from load.Place
			to   string
		}{
			{live.Pod(t, c, victim, client.IPs[i]), net.JoinHostPort(address, "80")},
			{load.In(c.UnderlayNamespace()), net.JoinHostPort(addresses(t, c, victim)[i].String(), "30800")},
		} {
			dial := func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
				err = way.from(func() error {
					conn, err = (&net.Dialer{}).DialContext(ctx, network, way.to)
					return err
				})
				return conn, err
			}
			l := web.Start(dial, nil, web.Kind{URL: "http://rolling/", Fresh: true}, web.Kind{URL: "http://rolling/", Fresh: true})
			loads = append(loads, l)
		}
	}
	for range soak.Times(10) {
		run(t, c, "rollout", "restart", "deployment/rolling")
		run(t, c, "rollout", "status", "deployment/rolling", "--timeout=120s")
	}
	for _, l := range loads {
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
		t.Logf("%d requests", l.Sent())
	}
}

const rolling = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: rolling}
spec:
  replicas: 3
  selector: {matchLabels: {app: rolling}}
  strategy: {rollingUpdate: {maxUnavailable: 0, maxSurge: 1}}
  template:
    metadata: {labels: {app: rolling}}
    spec:
      terminationGracePeriodSeconds: 20
      containers:
        - name: backend
          image: poplin.dev/test/backend:dev
          imagePullPolicy: IfNotPresent
          ports: [{name: web, containerPort: 8080}]
          readinessProbe: {httpGet: {path: /, port: web}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: rolling}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: rolling}
  ports: [{name: http, port: 80, targetPort: web, nodePort: 30800}]
`
