package cni_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/daemon/hostports"
	"poplin.dev/poplin/plugins/poplin/plan"
	"poplin.dev/poplin/test/cni"
	"poplin.dev/poplin/test/need"
)

// other is a second address of the node, client one beyond it.
var (
	other4, other6   = netip.MustParseAddr("192.168.7.2"), netip.MustParseAddr("fd00:7::2")
	client4, client6 = netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("2001:db8::9")
)

// hostPorts is a node whose pods may have host ports.
func hostPorts(t *testing.T) (*cni.Node, *libcni.NetworkConfigList) {
	t.Helper()
	n := node(t)
	nodeAddrs(t, n)
	lo := link(t, n.Link, "lo")
	for _, a := range []netip.Addr{other4, other6} {
		no(t, n.Link.AddrAdd(lo, &netlink.Addr{IPNet: netlink.NewIPNet(a.AsSlice()), Flags: unix.IFA_F_NODAD}))
	}
	more := fmt.Sprintf(`"stateDir":%q,"capabilities":{"portMappings":true,"bandwidth":true},`, stateDir(n))
	return n, list(t, pods(n, "1.1.0", range4+","+range6, more))
}

func stateDir(n *cni.Node) string { return filepath.Join(n.Dir, "state") }

// mapping is one portMapping as a runtime gives it.
type mapping struct {
	HostPort      int    `json:"hostPort"`
	ContainerPort int    `json:"containerPort"`
	Protocol      string `json:"protocol"`
	HostIP        string `json:"hostIP,omitempty"`
}

func podWith(t *testing.T, mappings ...mapping) *cni.Pod {
	t.Helper()
	p := pod(t)
	p.Capabilities = map[string]any{"portMappings": mappings}
	return p
}

// neighbour is a host on a link of its own with the node, by which it reaches
// everything, and by which the node routes more prefixes to it.
func neighbour(t *testing.T, n *cni.Node, name string, addrs ...netip.Addr) *cni.Pod {
	t.Helper()
	host, err := cni.NewPod(name)
	no(t, err)
	t.Cleanup(host.Close)
	f, err := os.Open(host.Path())
	no(t, err)
	defer f.Close()
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "eth0", PeerNamespace: netlink.NsFd(f.Fd())}
	no(t, n.Link.LinkAdd(veth))
	no(t, n.Link.LinkSetUp(veth))
	inner := link(t, host.Link, "eth0")
	no(t, host.Link.LinkSetUp(inner))
	for _, a := range addrs {
		no(t, host.Link.AddrAdd(inner, &netlink.Addr{IPNet: netlink.NewIPNet(a.AsSlice()), Flags: unix.IFA_F_NODAD}))
		no(t, n.Link.RouteAdd(&netlink.Route{LinkIndex: veth.Index, Dst: netlink.NewIPNet(a.AsSlice()), Scope: unix.RT_SCOPE_LINK}))
		via, any := nodeAddr4, "0.0.0.0/0"
		if a.Is6() {
			via, any = nodeAddr6, "::/0"
		}
		_, dst, err := net.ParseCIDR(any)
		no(t, err)
		if _, err := host.Link.RouteGet(via.AsSlice()); err != nil {
			no(t, host.Link.RouteAdd(&netlink.Route{LinkIndex: inner.Attrs().Index, Dst: dst, Gw: via.AsSlice(), Flags: unix.RTNH_F_ONLINK}))
		}
		// Neither end asks who has an address of the other: the node's are on
		// its loopback device.
		no(t, host.Link.NeighSet(&netlink.Neigh{LinkIndex: inner.Attrs().Index, IP: via.AsSlice(), State: unix.NUD_PERMANENT, HardwareAddr: link(t, n.Link, name).Attrs().HardwareAddr}))
		no(t, n.Link.NeighSet(&netlink.Neigh{LinkIndex: veth.Index, IP: a.AsSlice(), State: unix.NUD_PERMANENT, HardwareAddr: inner.Attrs().HardwareAddr}))
	}
	return host
}

// answers serves a port in a namespace, TCP and UDP: it says its name and
// whom it saw.
func answers(t *testing.T, in interface{ Do(func()) error }, name string, port int) {
	t.Helper()
	var l net.Listener
	var u net.PacketConn
	var err, err2 error
	no(t, in.Do(func() {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		u, err2 = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
	}))
	no(t, errors.Join(err, err2))
	t.Cleanup(func() { l.Close(); u.Close() })
	say := func(from net.Addr) string {
		host, _, _ := net.SplitHostPort(from.String())
		return name + " saw " + host
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, say(c.RemoteAddr()))
			c.Close()
		}
	}()
	go func() {
		b := make([]byte, 64)
		for {
			_, from, err := u.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = u.WriteTo([]byte(say(from)), from)
		}
	}()
}

// asks says what a client hears, or "" if nobody answers.
func asks(t *testing.T, from interface{ Do(func()) error }, network string, to netip.Addr, port int) (heard string) {
	t.Helper()
	patience := 2 * time.Second
	no(t, from.Do(func() {
		c, err := (&net.Dialer{Timeout: patience}).Dial(network, netip.AddrPortFrom(to, uint16(port)).String())
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		if network == "tcp" {
			b, _ := io.ReadAll(c)
			heard = string(b)
			return
		}
		b := make([]byte, 64)
		if _, err = c.Write([]byte("who?")); err == nil {
			n, _ := c.Read(b)
			heard = string(b[:n])
		}
	}))
	return heard
}

func heard(t *testing.T, from interface{ Do(func()) error }, network string, to netip.Addr, port int, want string) {
	t.Helper()
	if got := asks(t, from, network, to, port); got != want {
		t.Errorf("%s %s port %d: heard %q, want %q", network, to, port, got, want)
	}
}

func addrIn(r *types100.Result, like netip.Addr) netip.Addr {
	for _, ip := range r.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		if a = a.Unmap(); a.Is4() == like.Is4() {
			return a
		}
	}
	return netip.Addr{}
}

func TestHostPort(t *testing.T) {
	n, l := hostPorts(t)
	client := neighbour(t, n, "lan0", client4, client6)
	web := podWith(t, mapping{8080, 80, "tcp", ""}, mapping{8080, 80, "udp", ""})
	plain := pod(t)
	r, rPlain := add(t, n, l, web), add(t, n, l, plain)
	answers(t, web, "web", 80)
	answers(t, n, "node", 9090)
	for _, network := range []string{"tcp", "udp"} {
		for _, row := range []struct{ node, client netip.Addr }{{nodeAddr4, client4}, {other4, client4}, {nodeAddr6, client6}, {other6, client6}} {
			heard(t, client, network, row.node, 8080, "web saw "+row.client.String())
			heard(t, plain, network, row.node, 8080, "web saw "+addrIn(rPlain, row.node).String())
			heard(t, n, network, row.node, 8080, "web saw "+row.node.String())
			// The rest of the node is as it was.
			heard(t, client, "tcp", row.node, 9090, "node saw "+row.client.String())
			// Hairpin: what the pod sees is an address of the node's.
			got := asks(t, web, network, row.node, 8080)
			seen, err := netip.ParseAddr(strings.TrimPrefix(got, "web saw "))
			if own := []netip.Addr{nodeAddr4, nodeAddr6, other4, other6}; err != nil || seen == addrIn(r, row.node) || !slices.Contains(own, seen) {
				t.Errorf("%s to itself by %s: heard %q, want web saw one of %v", network, row.node, got, own)
			}
		}
		// The node's own loopback is left alone.
		heard(t, n, network, netip.MustParseAddr("127.0.0.1"), 8080, "")
		heard(t, n, network, netip.IPv6Loopback(), 8080, "")
	}
	no(t, n.Check(l, web))
	no(t, n.Check(l, plain))
	no(t, n.Del(l, web))
	heard(t, client, "tcp", nodeAddr4, 8080, "")
	no(t, n.Del(l, web))
	no(t, n.Del(l, plain))
	if got := ruleset(t, n); strings.Contains(got, "poplin-hostport") {
		t.Errorf("left in nftables:\n%s", got)
	}
	if got := savedPorts(t, n); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}

// TestHostPortLeavesTransitAlone: what passes through the node to a port of
// that number elsewhere arrives there, also from and to pods.
func TestHostPortLeavesTransitAlone(t *testing.T) {
	n, l := hostPorts(t)
	server4, server6 := netip.MustParseAddr("198.51.100.7"), netip.MustParseAddr("2001:db8:1::7")
	client, server := neighbour(t, n, "lan0", client4, client6), neighbour(t, n, "lan1", server4, server6)
	web, plain := podWith(t, mapping{8080, 80, "tcp", ""}, mapping{8080, 80, "udp", ""}), pod(t)
	add(t, n, l, web)
	r := add(t, n, l, plain)
	answers(t, web, "web", 80)
	answers(t, server, "server", 8080)
	answers(t, plain, "plain", 8080)
	for _, network := range []string{"tcp", "udp"} {
		for _, row := range []struct{ server, client, node netip.Addr }{{server4, client4, nodeAddr4}, {server6, client6, nodeAddr6}} {
			heard(t, client, network, row.node, 8080, "web saw "+row.client.String()) // positive control
			heard(t, client, network, row.server, 8080, "server saw "+row.client.String())
			heard(t, web, network, row.server, 8080, "server saw "+addrIn(add0(t, n, l, web), row.server).String())
			heard(t, client, network, addrIn(r, row.server), 8080, "plain saw "+row.client.String())
		}
	}
}

// add0 is the cached result of an ADD.
func add0(t *testing.T, n *cni.Node, l *libcni.NetworkConfigList, p *cni.Pod) *types100.Result {
	t.Helper()
	raw, err := n.CNI.GetNetworkListCachedResult(l, p.RuntimeConf())
	no(t, err)
	r, err := types100.NewResultFromResult(raw)
	no(t, err)
	return r
}

// TestHostPortsThatShareANumber: another address or protocol is another port.
func TestHostPortsThatShareANumber(t *testing.T) {
	n, l := hostPorts(t)
	client := neighbour(t, n, "lan0", client4, client6)
	one := podWith(t, mapping{8080, 80, "tcp", nodeAddr4.String()}, mapping{8080, 80, "tcp", other6.String()})
	two := podWith(t, mapping{8080, 80, "tcp", other4.String()}, mapping{8080, 80, "tcp", nodeAddr6.String()})
	datagrams := podWith(t, mapping{8080, 80, "udp", nodeAddr4.String()})
	loop := podWith(t, mapping{8080, 80, "tcp", "127.0.0.1"})
	for name, p := range map[string]*cni.Pod{"one": one, "two": two, "datagrams": datagrams, "loop": loop} {
		add(t, n, l, p)
		answers(t, p, name, 80)
	}
	heard(t, client, "tcp", nodeAddr4, 8080, "one saw "+client4.String())
	heard(t, client, "tcp", other4, 8080, "two saw "+client4.String())
	heard(t, client, "tcp", nodeAddr6, 8080, "two saw "+client6.String())
	heard(t, client, "tcp", other6, 8080, "one saw "+client6.String())
	heard(t, client, "udp", nodeAddr4, 8080, "datagrams saw "+client4.String())
	heard(t, client, "udp", other4, 8080, "")
	// A process of the node that does not send from a loopback address.
	var got string
	no(t, n.Do(func() {
		d := net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: nodeAddr4.AsSlice()}}
		if c, err := d.Dial("tcp", "127.0.0.1:8080"); err == nil {
			b, _ := io.ReadAll(c)
			got = string(b)
			c.Close()
		}
	}))
	if want := "loop saw " + nodeAddr4.String(); got != want {
		t.Errorf("127.0.0.1 from %s: heard %q, want %q", nodeAddr4, got, want)
	}

	for _, m := range []mapping{{8080, 1, "tcp", ""}, {8080, 1, "tcp", nodeAddr4.String()}, {8080, 1, "udp", "0.0.0.0"}} {
		p := podWith(t, m)
		_, err := n.Add(l, p)
		if err == nil || !strings.Contains(err.Error(), "pod default/pod") || !strings.Contains(err.Error(), "host port in use") {
			t.Errorf("%+v: %v", m, err)
		}
		if got := state(t, p.Link); len(got) > 0 {
			t.Errorf("the pod has %v left", got)
		}
	}
	if got := savedPorts(t, n); len(got) != 4 {
		t.Errorf("saved: %v", got)
	}
	// The port is free with its pod.
	no(t, n.Del(l, one))
	again := podWith(t, mapping{8080, 80, "tcp", nodeAddr4.String()})
	add(t, n, l, again)
	answers(t, again, "again", 80)
	heard(t, client, "tcp", nodeAddr4, 8080, "again saw "+client4.String())
}

// TestHostPortEndsUDPFlows: a client that keeps its port finds the next pod,
// and the first one although it called before it was there.
func TestHostPortEndsUDPFlows(t *testing.T) {
	n, l := hostPorts(t)
	client := neighbour(t, n, "lan0", client4, client6)
	answers(t, n, "node", 5353)
	// The node's own server answers an IPv6 client from another address.
	for _, row := range []struct {
		node, client netip.Addr
		before       string
	}{{nodeAddr4, client4, "node saw " + client4.String()}, {nodeAddr6, client6, ""}} {
		var conn net.Conn
		var err error
		no(t, client.Do(func() {
			conn, err = net.Dial("udp", netip.AddrPortFrom(row.node, 5353).String())
		}))
		no(t, err)
		defer conn.Close()
		call := func(patience time.Duration) string {
			b := make([]byte, 64)
			_ = conn.SetDeadline(time.Now().Add(patience))
			_, _ = conn.Write([]byte("who?"))
			size, err := conn.Read(b)
			if err != nil {
				return ""
			}
			return string(b[:size])
		}
		if got := call(time.Second); got != row.before {
			t.Errorf("before: heard %q, want %q", got, row.before)
		}
		for i := range 3 {
			p := podWith(t, mapping{5353, 53, "udp", ""})
			add(t, n, l, p)
			answers(t, p, p.ID, 53)
			if got, want := call(2*time.Second), p.ID+" saw "+row.client.String(); got != want {
				t.Errorf("pod %d: heard %q, want %q", i, got, want)
			}
			no(t, n.Del(l, p))
		}
	}
}

// TestHostPortOfAKilledDEL: an entry ends with its link, whoever notices.
func TestHostPortOfAKilledDEL(t *testing.T) {
	n, l := hostPorts(t)
	client := neighbour(t, n, "lan0", client4, client6)
	dead := podWith(t, mapping{8080, 80, "tcp", ""})
	r := add(t, n, l, dead)
	no(t, n.Link.LinkDel(link(t, n.Link, r.Interfaces[0].Name)))
	next := podWith(t, mapping{8080, 80, "tcp", ""})
	add(t, n, l, next)
	answers(t, next, "next", 80)
	heard(t, client, "tcp", nodeAddr4, 8080, "next saw "+client4.String())
	if got := savedPorts(t, n); len(got) != 1 {
		t.Errorf("saved: %v", got)
	}
	no(t, n.Del(l, dead))
	heard(t, client, "tcp", nodeAddr4, 8080, "next saw "+client4.String())

	// An ADD killed after it saved: DEL finds it by the container's id alone.
	half := podWith(t, mapping{8081, 80, "tcp", ""})
	name := plan.HostName(half.ID, half.If)
	no(t, os.WriteFile(filepath.Join(stateDir(n), "hostports", name+".json"),
		[]byte(`{"containerID":"x","ifName":"eth0","elements":[{"protocol":"tcp","host":"0.0.0.0","hostPort":8081,"pod":"10.244.1.99","podPort":80}]}`), 0o600))
	no(t, n.Del(l, half))
	if got := savedPorts(t, n); len(got) != 1 {
		t.Errorf("saved: %v", got)
	}
}

func TestHostPortCheck(t *testing.T) {
	n, l := hostPorts(t)
	p := podWith(t, mapping{8080, 80, "tcp", nodeAddr4.String()}, mapping{53, 53, "udp", ""})
	add(t, n, l, p)
	no(t, n.Check(l, p))
	if rules := ruleset(t, n); strings.Contains(rules, "unknown") || !strings.Contains(rules, "fib daddr type local goto ports") ||
		!strings.Contains(rules, "map @hosts4") {
		t.Errorf("nft cannot print all of\n%s", rules)
	}
	for _, harm := range []string{
		"delete element inet poplin-hostport hosts4 { 192.168.7.1 . tcp . 8080 : 10.244.1.2 . 80 }",
		"flush map inet poplin-hostport any6",
		"flush chain inet poplin-hostport prerouting",
		"delete table inet poplin-hostport",
	} {
		nft(t, n, harm)
		if err := n.Check(l, p); err == nil || !strings.Contains(err.Error(), "poplin-hostport") {
			t.Errorf("%s: CHECK said %v", harm, err)
		}
		// Any pod's host ports bring back all.
		q := podWith(t, mapping{8081, 80, "tcp", ""})
		add(t, n, l, q)
		no(t, n.Check(l, p))
		no(t, n.Del(l, q))
		no(t, n.Check(l, p))
	}
	nft(t, n, "delete table inet poplin-hostport")
	nft(t, n, "add table inet poplin-hostport; add chain inet poplin-hostport prerouting { type filter hook prerouting priority 0; }; add set inet poplin-hostport any4 { type ipv4_addr; }")
	q := podWith(t, mapping{8081, 80, "tcp", ""})
	add(t, n, l, q)
	no(t, n.Check(l, p))
	no(t, os.Remove(filepath.Join(stateDir(n), "hostports", plan.HostName(p.ID, p.If)+".json")))
	if err := n.Check(l, p); err == nil || !strings.Contains(err.Error(), "not saved") {
		t.Errorf("without its file, CHECK said %v", err)
	}
}

// TestPodsWithoutHostPorts leave no trace of the feature.
func TestPodsWithoutHostPorts(t *testing.T) {
	n, l := hostPorts(t)
	p := podWith(t)
	add(t, n, l, p)
	no(t, n.Check(l, p))
	no(t, n.Del(l, p))
	if _, err := os.Stat(stateDir(n)); !os.IsNotExist(err) {
		t.Errorf("state directory: %v", err)
	}
	if got := ruleset(t, n); got != "" {
		t.Errorf("nftables:\n%s", got)
	}
	no(t, n.Del(l, p))
}

func savedPorts(t *testing.T, n *cni.Node) (names []string) {
	t.Helper()
	files, err := os.ReadDir(filepath.Join(stateDir(n), "hostports"))
	no(t, err)
	for _, f := range files {
		if f.Name() != "lock" {
			names = append(names, f.Name())
		}
	}
	return names
}

func nft(t *testing.T, n *cni.Node, command string) string {
	t.Helper()
	program := need.Program(t, "nft", "nftables")
	var out []byte
	var err error
	no(t, n.Do(func() { out, err = exec.Command(program, command).CombinedOutput() }))
	if err != nil {
		t.Fatalf("nft %s: %v\n%s", command, err, out)
	}
	return string(out)
}

func ruleset(t *testing.T, n *cni.Node) string { return nft(t, n, "list ruleset") }

// TestHostPortsAreRepaired: the daemon's task restores what another program
// destroys, and what was destroyed while it was away.
func TestHostPortsAreRepaired(t *testing.T) {
	n, l := hostPorts(t)
	client := neighbour(t, n, "lan0", client4, client6)
	p := podWith(t, mapping{8080, 80, "tcp", ""})
	r := add(t, n, l, p)
	answers(t, p, "web", 80)
	// A chain that was deleted comes back as the last one.
	lines := func() string {
		l := strings.Split(ruleset(t, n), "\n")
		slices.Sort(l)
		return strings.Join(l, "\n")
	}
	all := lines()
	nft(t, n, "flush ruleset") // while nobody looks

	passes := make(chan error, 100)
	module := hostports.New(hostports.Deps{
		Dir: filepath.Join(stateDir(n), "hostports"), Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Resync: time.Hour,
		Report: func(_ time.Duration, err error) { passes <- err },
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		var err error
		done <- errors.Join(n.Do(func() { err = module.Run(ctx) }), err)
	}()
	t.Cleanup(func() {
		stop()
		no(t, <-done)
	})
	select {
	case <-module.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("not ready within 10 s")
	}
	repaired := func(harm string) {
		start := time.Now()
		for lines() != all {
			if time.Since(start) > 10*time.Second {
				t.Fatalf("not repaired after %s:\n%s\nwant\n%s", harm, ruleset(t, n), all)
			}
		}
		t.Logf("%s: repaired within %v", harm, time.Since(start))
	}
	repaired("start")
	for _, harm := range []string{
		"flush ruleset", "delete table inet poplin-hostport", "flush chain inet poplin-hostport ports",
		"delete element inet poplin-hostport any4 { tcp . 8080 : " + addrIn(r, nodeAddr4).String() + " . 80 }",
		"add element inet poplin-hostport any4 { tcp . 9999 : 192.0.2.1 . 80 }",
		"delete chain inet poplin-hostport output",
	} {
		nft(t, n, harm)
		repaired(harm)
		heard(t, client, "tcp", nodeAddr4, 8080, "web saw "+client4.String())
	}
	// Somebody else's table is nobody's business, and no event without end.
	nft(t, n, "add table inet other")
	quiet := time.After(500 * time.Millisecond)
	for count := 0; quiet != nil; {
		select {
		case err := <-passes:
			no(t, err)
			if count++; count > 50 {
				t.Fatal("passes do not end")
			}
		case <-quiet:
			quiet = nil
		}
	}
	// A pod whose DEL never comes takes its host port along.
	no(t, n.Link.LinkDel(link(t, n.Link, r.Interfaces[0].Name)))
	nft(t, n, "delete table inet other; flush table inet poplin-hostport")
	all = ""
	repaired("the end of the pod")
	if got := savedPorts(t, n); len(got) > 0 {
		t.Errorf("left: %v", got)
	}
}
