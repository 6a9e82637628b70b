// Package policy asks the kernel who may talk to whom: two nodes with pods, a
// host outside and a link between the nodes are network namespaces, each
// node's kernel holds what the compiler made of the objects, and each row of a
// table says by hand which packets must arrive. The same rows are asked of
// pkg/trace and of the oracle. Namespaces have no names, so nothing can be
// left behind, whatever ends the tests.
package policy

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	applypermit "poplin.dev/poplin/pkg/apply/permit"
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
	policies "poplin.dev/poplin/pkg/policy"
	"poplin.dev/poplin/pkg/program/nft"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/test/need"
	oracle "poplin.dev/poplin/test/oracle/policies"
	"poplin.dev/poplin/test/space"
)

// places are the addresses of everything, by name: IPv4, IPv6.
var places = map[string][2]string{
	"web":   {"10.244.1.2", "fd00:244:1::2"}, // worker-1, shop
	"api":   {"10.244.1.3", "fd00:244:1::3"}, // worker-1, shop
	"db":    {"10.244.2.2", "fd00:244:2::2"}, // worker-2, bank
	"ops":   {"10.244.2.3", "fd00:244:2::3"}, // worker-2, ops
	"node1": {"172.30.0.11", "fd00:30::11"},
	"node2": {"172.30.0.12", "fd00:30::12"},
	"host":  {"192.0.2.7", "2001:db8:c::7"}, // outside, behind worker-1
	// A Service's address, at worker-1, whose only endpoint is web.
	"self": {"192.0.2.250", "2001:db8:c::250"},
}

// endpoint is the place that one is reached at in the end.
func endpoint(place string) string {
	if place == "self" {
		return "web"
	}
	return place
}

// at is the address of a place in one family.
func at(place string, ipv6 bool) netip.Addr {
	p, ok := places[place]
	if !ok {
		panic("no place " + place)
	}
	if ipv6 {
		return netip.MustParseAddr(p[1])
	}
	return netip.MustParseAddr(p[0])
}

// pods of the lab. Each listens at the ports in listened.
func pods() []policy.Pod {
	named := func(n uint16) []policy.NamedPort {
		return []policy.NamedPort{{Name: "http", Protocol: service.TCP, Port: n}, {Name: "dns", Protocol: service.UDP, Port: n}}
	}
	list := []policy.Pod{
		{Key: policy.Key{Namespace: "shop", Name: "web"}, Node: "worker-1", Labels: map[string]string{"app": "web", "tier": "front"}, Ports: named(8080)},
		{Key: policy.Key{Namespace: "shop", Name: "api"}, Node: "worker-1", Labels: map[string]string{"app": "api", "tier": "back"}, Ports: named(9090)},
		{Key: policy.Key{Namespace: "bank", Name: "db"}, Node: "worker-2", Labels: map[string]string{"app": "db", "tier": "back"}, Ports: named(8080)},
		{Key: policy.Key{Namespace: "ops", Name: "ops"}, Node: "worker-2", Labels: map[string]string{"app": "ops"}},
	}
	for i := range list {
		list[i].Addresses = []netip.Addr{at(list[i].Name, false), at(list[i].Name, true)}
	}
	return list
}

func namespaces() []policy.Namespace {
	var list []policy.Namespace
	for name, team := range map[string]string{"shop": "sales", "bank": "money", "ops": "sales"} {
		list = append(list, policy.Namespace{Name: name, Labels: map[string]string{"kubernetes.io/metadata.name": name, "team": team}})
	}
	return list
}

func nodes() []policy.Node {
	var list []policy.Node
	for i, name := range []string{"node1", "node2"} {
		list = append(list, policy.Node{Name: fmt.Sprint("worker-", i+1), Labels: map[string]string{"number": fmt.Sprint(i + 1)},
			Addresses: []netip.Addr{at(name, false), at(name, true)}})
	}
	return list
}

// worker is one node: its namespace, its table of objects and the kernel's.
type worker struct {
	name   string
	space  *space.Space
	kernel *applypermit.Table
	table  *policies.Table
	// program got nothing but the table's changes, as the kernel did.
	program permit.Program
}

// lab is both nodes and what surrounds them.
type lab struct {
	workers []*worker
	homes   map[string]*space.Space // where a place's sockets are
	world   oracle.World
	heard   heard
	// mutant is a chain that is to be another than it should be.
	mutant *nft.Chain
}

func newLab(t testing.TB) *lab {
	t.Helper()
	return openLab(t, applypermit.Config{})
}

func openLab(t testing.TB, conf applypermit.Config) *lab {
	t.Helper()
	need.Link(t, "veth")
	conf.Log = slog.New(slog.DiscardHandler)
	l := &lab{homes: map[string]*space.Space{}, heard: heard{packets: map[[2]netip.AddrPort]bool{}}}
	for _, name := range []string{"worker-1", "worker-2"} {
		w := &worker{name: name, space: router(t), table: policies.NewTable(name, permit.New()), program: permit.New()}
		if err := w.space.Do(func() (err error) {
			w.kernel, err = applypermit.Open(conf)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.kernel.Close() })
		l.workers = append(l.workers, w)
	}
	one, two := l.workers[0].space, l.workers[1].space
	space.Veth(t, one, "eth1", 0, two, "eth1")
	l.homes["node1"], l.homes["node2"] = one, two
	for _, n := range []string{"node1", "node2"} {
		for _, ipv6 := range []bool{false, true} {
			l.homes[n].AddAddr(t, "eth1", netip.PrefixFrom(at(n, ipv6), at(n, ipv6).BitLen()))
		}
	}
	for place, w := range map[string]*space.Space{"web": one, "api": one, "host": one, "db": two, "ops": two} {
		l.attach(t, w, place)
	}
	for place := range places {
		if place == "self" {
			continue
		}
		far := one
		if place == "web" || place == "api" || place == "host" || place == "node1" {
			far = two
		}
		near := one
		if far == one {
			near = two
		}
		mac := near.Link(t, "eth1").Attrs().HardwareAddr
		for _, ipv6 := range []bool{false, true} {
			a := at(place, ipv6)
			far.Route(t, netip.PrefixFrom(a, a.BitLen()), "eth1", a, mac)
		}
	}
	for place := range places {
		if place != "self" {
			l.serve(t, place)
		}
	}
	loopBack(t, one)
	l.world = oracle.World{Namespaces: namespaces(), Nodes: nodes()}
	for _, w := range l.workers {
		for _, n := range l.world.Namespaces {
			w.table.SetNamespace(n)
		}
		for _, n := range l.world.Nodes {
			w.table.SetNode(n)
		}
	}
	for _, p := range pods() {
		l.setPod(p)
	}
	l.sync(t)
	return l
}

// router makes a namespace that forwards, and takes packets from every side.
func router(t testing.TB) *space.Space {
	t.Helper()
	return space.New(t, "ipv4/conf/all/rp_filter", "0", "ipv4/conf/default/rp_filter", "0",
		"ipv4/ip_forward", "1", "ipv6/conf/all/forwarding", "1")
}

// attach makes the namespace of a pod, or of the host, next to a node.
func (l *lab) attach(t testing.TB, node *space.Space, place string) {
	t.Helper()
	s := space.New(t, "ipv4/icmp_ratelimit", "0", "ipv6/icmp/ratelimit", "0") // each error counts
	space.Veth(t, node, place, 0, s, "eth0")
	here, there := s.Link(t, "eth0").Attrs().HardwareAddr, node.Link(t, place).Attrs().HardwareAddr
	for _, ipv6 := range []bool{false, true} {
		gateway, all := netip.MustParseAddr("169.254.1.1"), netip.MustParsePrefix("0.0.0.0/0")
		if ipv6 {
			gateway, all = netip.MustParseAddr("fe80::1"), netip.MustParsePrefix("::/0")
		}
		a := at(place, ipv6)
		own := netip.PrefixFrom(a, a.BitLen())
		s.AddAddr(t, "eth0", own)
		node.Route(t, own, place, a, here)
		s.Route(t, all, "eth0", gateway, there)
	}
	l.homes[place] = s
}

// loopBack leads the address of the Service to its endpoint, and has an
// endpoint that talks to itself see the node, as Services do.
func loopBack(t testing.TB, node *space.Space) {
	t.Helper()
	rules := "table inet services {\n chain in { type nat hook prerouting priority dstnat;\n"
	for _, f := range []string{"ip", "ip6"} {
		rules += fmt.Sprintf("  %s daddr %s dnat %s to %s\n", f, at("self", f == "ip6"), f, at("web", f == "ip6"))
	}
	rules += " }\n chain out { type nat hook postrouting priority srcnat;\n"
	for _, f := range []string{"ip", "ip6"} {
		web := at("web", f == "ip6")
		rules += fmt.Sprintf("  %s saddr %s %s daddr %s masquerade\n", f, web, f, web)
	}
	rules += " }\n}\n"
	file := filepath.Join(t.TempDir(), "rules")
	if err := errors.Join(os.WriteFile(file, []byte(rules), 0o600), node.Do(func() error {
		space.Nft(t, "-f", file)
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	// What is masqueraded gets an address of the way back to the pod.
	for _, ipv6 := range []bool{false, true} {
		node.AddAddr(t, "web", netip.PrefixFrom(at("node1", ipv6), at("node1", ipv6).BitLen()))
	}
}

// Ports at which everybody listens, for TCP and for UDP.
var listened = []uint16{80, 8080, 9090}

// serve answers with what was received, and takes down first packets of SCTP.
func (l *lab) serve(t testing.TB, place string) {
	t.Helper()
	for _, ipv6 := range []bool{false, true} {
		l.hear(t, place, ipv6)
		for _, port := range listened {
			addr := netip.AddrPortFrom(at(place, ipv6), port)
			var (
				tcp net.Listener
				udp *net.UDPConn
			)
			if err := l.homes[place].Do(func() (err error) {
				if tcp, err = net.Listen("tcp", addr.String()); err != nil {
					return err
				}
				udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
				return err
			}); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { tcp.Close(); udp.Close() })
			go func() {
				for {
					c, err := tcp.Accept()
					if err != nil {
						return
					}
					go echo(c)
				}
			}()
			go func() {
				buf := make([]byte, 64)
				for {
					n, from, err := udp.ReadFromUDPAddrPort(buf)
					if err != nil {
						return
					}
					udp.WriteToUDPAddrPort(buf[:n], from)
				}
			}()
		}
	}
}

func echo(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 64)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}

// setPod tells both nodes and the oracle of a pod.
func (l *lab) setPod(p policy.Pod) {
	l.world.Pods = append(slices.DeleteFunc(l.world.Pods, func(o policy.Pod) bool { return o.Key == p.Key }), p)
	for _, w := range l.workers {
		w.table.SetPod(p)
	}
}

// setNamespace tells everybody of a namespace.
func (l *lab) setNamespace(n policy.Namespace) {
	l.world.Namespaces = append(slices.DeleteFunc(l.world.Namespaces, func(o policy.Namespace) bool { return o.Name == n.Name }), n)
	for _, w := range l.workers {
		w.table.SetNamespace(n)
	}
}

// set makes these the policies there are, and returns what is wrong with them.
func (l *lab) set(list []policy.NetworkPolicy, cluster []policy.ClusterPolicy) (findings []policies.Finding) {
	for _, w := range l.workers {
		findings = nil
		for _, p := range l.world.Policies {
			w.table.DeletePolicy(p.Key)
		}
		for _, c := range l.world.Cluster {
			w.table.DeleteClusterPolicy(c.Key)
		}
		for _, p := range list {
			findings = append(findings, w.table.SetPolicy(p)...)
		}
		for _, c := range cluster {
			findings = append(findings, w.table.SetClusterPolicy(c)...)
		}
	}
	l.world.Policies, l.world.Cluster = list, cluster
	return findings
}

// sync sends what has changed, as the daemon would.
func (l *lab) sync(t testing.TB) {
	t.Helper()
	for _, w := range l.workers {
		c := w.table.Take()
		if err := w.kernel.Apply(c); err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
		c.Apply(w.program)
	}
	if l.mutant != nil {
		l.rewrite(t, *l.mutant) // that may have been written just now
	}
}
