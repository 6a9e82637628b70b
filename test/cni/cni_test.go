package cni_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/test/cni"
	"poplin.dev/poplin/test/need"
)

// upstream is where Debian's containernetworking-plugins puts them.
const upstream = "/usr/lib/cni"

var plugin = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "poplin-cni-")
	if err != nil {
		return "", err
	}
	return dir, cni.Build(dir, "cmd/poplin")
})

func TestMain(m *testing.M) {
	code := m.Run()
	if dir, err := plugin(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(code)
}

// node is a node with the plugin on it, and nothing else of ours. path has
// more directories with plugins.
func node(t *testing.T, path ...string) *cni.Node {
	t.Helper()
	need.Root(t)
	need.Link(t, "veth")
	bin, err := plugin()
	if err != nil {
		t.Fatal(err)
	}
	n, err := cni.NewNode(t.TempDir(), append([]string{bin, upstream}, path...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

var serial int

func pod(t *testing.T) *cni.Pod {
	t.Helper()
	serial++
	p, err := cni.NewPod(fmt.Sprintf("pod%d", serial))
	if err != nil {
		t.Fatal(err)
	}
	p.Args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "default"}, {"K8S_POD_NAME", p.ID}}
	t.Cleanup(p.Close)
	return p
}

func list(t *testing.T, conf string) *libcni.NetworkConfigList {
	t.Helper()
	l, err := cni.List(conf)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const (
	range4 = `[{"subnet":"10.244.1.0/24"}]`
	range6 = `[{"subnet":"fd00:10:244:1::/64"}]`
)

// pods is a configuration as docs/cni.md shows it, with more keys if given.
func pods(n *cni.Node, version, ranges, more string) string {
	return fmt.Sprintf(`{"cniVersion":%q,"name":"pods","type":"poplin","mtu":1450,%s"ipam":{"type":"host-local","dataDir":%q,"ranges":[%s]}}`,
		version, more, n.Dir+"/ipam", ranges)
}

func TestPodsReachEachOther(t *testing.T) {
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		for ranges, families := range map[string]int{range4: 1, range6: 1, range4 + "," + range6: 2} {
			t.Run(fmt.Sprintf("%s %s", version, ranges), func(t *testing.T) {
				n := node(t)
				l := list(t, pods(n, version, ranges, ""))
				nodeAddrs(t, n)
				a, b := pod(t), pod(t)
				ra, rb := add(t, n, l, a), add(t, n, l, b)
				if len(ra.IPs) != families || len(ra.Routes) != families {
					t.Fatalf("result has %v and %v, want %d of each", ra.IPs, ra.Routes, families)
				}
				reach(t, a, ra, b, rb)
				reach(t, b, rb, a, ra)
				reachNode(t, n, a, ra)
				if version != "0.3.1" {
					if err := n.Check(l, a); err != nil {
						t.Errorf("CHECK: %v", err)
					}
				}
				if version == "1.1.0" {
					if err := n.Status(l); err != nil {
						t.Errorf("STATUS: %v", err)
					}
				}
				for _, p := range []*cni.Pod{a, b, a} { // DEL is repeatable
					if err := n.Del(l, p); err != nil {
						t.Errorf("DEL: %v", err)
					}
				}
				empty(t, n, a, b)
			})
		}
	}
}

func TestMinimalConfigurationNeedsNothingElse(t *testing.T) {
	n := node(t)
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"pods","type":"poplin","mtu":1450,"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.244.1.0/24"}],[{"subnet":"fd00:10:244:1::/64"}]]}}`, n.Dir+"/some/dir")
	l := list(t, conf)
	a, b := pod(t), pod(t)
	ra, rb := add(t, n, l, a), add(t, n, l, b)
	reach(t, a, ra, b, rb)
	if got := ra.IPs[0].Address.IP.String(); got != "10.244.1.2" {
		t.Errorf("first address %s, want 10.244.1.2: .0 and .1 are not given", got)
	}
	if got := ra.IPs[1].Address.IP.String(); got != "fd00:10:244:1::2" {
		t.Errorf("first address %s, want fd00:10:244:1::2", got)
	}
}

func TestManyAtOnce(t *testing.T) {
	n := node(t)
	l := list(t, pods(n, "1.0.0", range4+","+range6, ""))
	all := make([]*cni.Pod, 32)
	for i := range all {
		all[i] = pod(t)
	}
	results := make([]*types100.Result, len(all))
	each(t, all, func(i int, p *cni.Pod) (err error) { results[i], err = n.Add(l, p); return err })
	seen := map[string]string{}
	for i, r := range results {
		for _, ip := range r.IPs {
			if other := seen[ip.Address.String()]; other != "" {
				t.Errorf("%s and %s both have %s", other, all[i].ID, ip.Address.String())
			}
			seen[ip.Address.String()] = all[i].ID
		}
	}
	reach(t, all[0], results[0], all[31], results[31])
	each(t, all, func(_ int, p *cni.Pod) error { return n.Check(l, p) })
	each(t, all, func(_ int, p *cni.Pod) error { return n.Del(l, p) })
	empty(t, n, all...)
}

func TestSharesDirectoryWithUpstream(t *testing.T) {
	need.Program(t, upstream+"/ptp", "containernetworking-plugins")
	n := node(t)
	ours := list(t, pods(n, "1.0.0", range4, ""))
	theirs := list(t, strings.Replace(pods(n, "1.0.0", range4, ""), `"poplin"`, `"ptp"`, 1))
	all := make([]*cni.Pod, 24)
	for i := range all {
		all[i] = pod(t)
	}
	which := func(i int) *libcni.NetworkConfigList { return []*libcni.NetworkConfigList{ours, theirs}[i%2] }
	var mu sync.Mutex
	seen := map[string]bool{}
	each(t, all, func(i int, p *cni.Pod) error {
		r, err := n.Add(which(i), p)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		if ip := r.IPs[0].Address.IP.String(); seen[ip] {
			return fmt.Errorf("%s given twice", ip)
		} else {
			seen[ip] = true
		}
		return nil
	})
	each(t, all, func(i int, p *cni.Pod) error { return n.Del(which(i), p) })
	empty(t, n, all...)

	// Either releases what the other reserved.
	p := pod(t)
	add(t, n, ours, p)
	if err := n.Del(theirs, p); err != nil {
		t.Fatal(err)
	}
	if got := reservations(t, n); len(got) > 0 {
		t.Errorf("upstream's DEL left %v", got)
	}
	if err := n.Del(ours, p); err != nil {
		t.Fatal(err)
	}
	empty(t, n, p)
}

func TestDelegatesOtherIPAM(t *testing.T) {
	need.Program(t, upstream+"/static", "containernetworking-plugins")
	n := node(t)
	conf := `{"cniVersion":"1.0.0","name":"pods","type":"poplin","mtu":1450,"ipam":{"type":"static","addresses":[{"address":"10.9.8.7/24","gateway":"10.9.8.1"}],"routes":[{"dst":"10.99.0.0/16"}]}}`
	l := list(t, conf)
	p := pod(t)
	r := add(t, n, l, p)
	if len(r.IPs) != 1 || r.IPs[0].Address.String() != "10.9.8.7/24" || len(r.Routes) != 2 {
		t.Errorf("result has %v and %v", r.IPs, r.Routes)
	}
	if err := n.Check(l, p); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if err := n.Del(l, p); err != nil {
		t.Errorf("DEL: %v", err)
	}
	empty(t, n, p)
}

func TestStaticAddress(t *testing.T) {
	n := node(t)
	conf := strings.Replace(pods(n, "1.0.0", range4+","+range6, ""), `"mtu"`, `"capabilities":{"ips":true},"mtu"`, 1)
	l := list(t, conf)
	p := pod(t)
	p.Capabilities = map[string]any{"ips": []string{"10.244.1.77/24"}}
	r := add(t, n, l, p)
	if got := r.IPs[0].Address.String(); got != "10.244.1.77/32" {
		t.Errorf("got %s, asked for 10.244.1.77", got)
	}
	second := pod(t)
	second.Capabilities = p.Capabilities
	if _, err := n.Add(l, second); err == nil || !strings.Contains(err.Error(), "10.244.1.77 is reserved for another pod") {
		t.Errorf("second pod with the same address: %v", err)
	}
	viaArgs := pod(t)
	viaArgs.Args = append(viaArgs.Args, [2]string{"IP", "10.244.1.78"})
	if r := add(t, n, l, viaArgs); r.IPs[0].Address.IP.String() != "10.244.1.78" {
		t.Errorf("CNI_ARGS IP=10.244.1.78 gave %v", r.IPs)
	}
}

func add(t *testing.T, n *cni.Node, l *libcni.NetworkConfigList, p *cni.Pod) *types100.Result {
	t.Helper()
	r, err := n.Add(l, p)
	if err != nil {
		t.Fatalf("ADD %s: %v", p.ID, err)
	}
	return r
}

// each runs f for all pods at once.
func each(t *testing.T, pods []*cni.Pod, f func(int, *cni.Pod) error) {
	t.Helper()
	errs := make([]error, len(pods))
	var wg sync.WaitGroup
	for i, p := range pods {
		wg.Go(func() { errs[i] = f(i, p) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("pod %s: %v", pods[i].ID, err)
		}
	}
}

// reach opens a connection from each address of a to b's of the same family,
// and asks b whom it saw.
func reach(t *testing.T, a *cni.Pod, ra *types100.Result, b *cni.Pod, rb *types100.Result) {
	t.Helper()
	for i := range ra.IPs {
		from, to := ra.IPs[i].Address.IP, rb.IPs[i].Address.IP
		seen, err := dial(b, a.Do, to)
		if err != nil {
			t.Errorf("%s to %s: %v", from, to, err)
		} else if seen != from.String() {
			t.Errorf("%s to %s: the server saw %s", from, to, seen)
		}
	}
}

var (
	nodeAddr4 = netip.MustParseAddr("192.168.7.1")
	nodeAddr6 = netip.MustParseAddr("fd00:7::1")
)

func nodeAddrs(t *testing.T, n *cni.Node) {
	t.Helper()
	lo, err := n.Link.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []netip.Addr{nodeAddr4, nodeAddr6} {
		addr := &netlink.Addr{IPNet: netlink.NewIPNet(a.AsSlice()), Flags: 2 /* IFA_F_NODAD */}
		if err := n.Link.AddrAdd(lo, addr); err != nil {
			t.Fatal(err)
		}
	}
}

// reachNode is reach in both directions between a pod and its node.
func reachNode(t *testing.T, n *cni.Node, p *cni.Pod, r *types100.Result) {
	t.Helper()
	for _, ip := range r.IPs {
		addr := nodeAddr4
		if ip.Address.IP.To4() == nil {
			addr = nodeAddr6
		}
		if seen, err := dial(n, p.Do, addr.AsSlice()); err != nil || seen != ip.Address.IP.String() {
			t.Errorf("pod to node's %s: %v, saw %s", addr, err, seen)
		}
		if _, err := dial(p, n.Do, ip.Address.IP); err != nil {
			t.Errorf("node to pod's %s: %v", ip.Address.IP, err)
		}
	}
}

// dial listens at to in the server's namespace, connects from the client's
// and returns the client's address as the server saw it.
func dial(server interface{ Do(func()) error }, client func(func()) error, to net.IP) (seen string, err error) {
	var l net.Listener
	if e := server.Do(func() { l, err = net.ListenTCP("tcp", &net.TCPAddr{IP: to}) }); e != nil || err != nil {
		return "", fmt.Errorf("listen: %w", errors.Join(e, err))
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, c.RemoteAddr().(*net.TCPAddr).IP)
			c.Close()
		}
	}()
	var out []byte
	e := client(func() {
		var c net.Conn
		if c, err = (&net.Dialer{Timeout: 3 * time.Second}).Dial("tcp", l.Addr().String()); err == nil {
			defer c.Close()
			c.SetDeadline(time.Now().Add(3 * time.Second))
			out, err = io.ReadAll(c)
		}
	})
	if e != nil {
		return "", e
	}
	return string(out), err
}

// reservations is the files that hold an address.
func reservations(t *testing.T, n *cni.Node) (names []string) {
	t.Helper()
	files, err := filepath.Glob(n.Dir + "/ipam/pods/*") // names with a dot in front as well
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name := filepath.Base(f); name != "lock" && !strings.HasPrefix(name, "last_reserved_ip.") {
			names = append(names, name)
		}
	}
	return names
}

// empty wants nothing of a pod left: no link, route or neighbour on the node,
// no reservation, no interface in the pods.
func empty(t *testing.T, n *cni.Node, pods ...*cni.Pod) {
	t.Helper()
	if got := reservations(t, n); len(got) > 0 {
		t.Errorf("reservations are left: %v", got)
	}
	if got := state(t, n.Link); len(got) > 0 {
		t.Errorf("the node has %v left", got)
	}
	for _, p := range pods {
		if got := state(t, p.Link); len(got) > 0 {
			t.Errorf("pod %s has %v left", p.ID, got)
		}
	}
}

// state is everything in a namespace that is not there from the start, and
// that the kernel does not add by itself after a while.
func state(t *testing.T, h *netlink.Handle) (found []string) {
	t.Helper()
	links, err := h.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	loopback := map[int]bool{}
	for _, l := range links {
		if a := l.Attrs(); a.Flags&net.FlagLoopback != 0 {
			loopback[a.Index] = true
		} else {
			found = append(found, "link "+a.Name)
		}
	}
	routes, err := h.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if !loopback[r.LinkIndex] && !r.Dst.IP.IsLinkLocalUnicast() {
			found = append(found, "route "+r.String())
		}
	}
	neighs, err := h.NeighList(0, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range neighs {
		if !loopback[e.LinkIndex] && e.State != netlink.NUD_NOARP {
			found = append(found, "neighbour "+e.String())
		}
	}
	return found
}
