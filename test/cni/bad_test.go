package cni_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/test/cni"
)

// cniError is an error as a plugin prints it.
type cniError struct {
	CNIVersion   string
	Code         uint
	Msg, Details string
}

// call is one execution of the plugin without libcni, which would refuse
// some of these itself.
type call struct {
	command, id, netns, ifName, args, conf string
}

func (c call) run(n *cni.Node) ([]byte, error) {
	env := []string{"CNI_COMMAND=" + c.command, "CNI_CONTAINERID=" + c.id, "CNI_IFNAME=" + c.ifName, "CNI_ARGS=" + c.args}
	if c.netns != "" {
		env = append(env, "CNI_NETNS="+c.netns)
	}
	return n.Exec("poplin", c.conf, env...)
}

// refused wants an error on stdout with that code, and a message and details
// of which one contains each of texts.
func refused(t *testing.T, stdout []byte, err error, code uint, texts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("succeeded with %s", stdout)
	}
	var e cniError
	if err := json.Unmarshal(stdout, &e); err != nil {
		t.Fatalf("stdout is no error: %v\n%s", err, stdout)
	}
	if e.Code != code || e.CNIVersion == "" || e.Msg == "" || e.Details == "" {
		t.Errorf("got %+v, want code %d and all fields", e, code)
	}
	for _, text := range texts {
		if !strings.Contains(e.Msg+"; "+e.Details, text) {
			t.Errorf("%q: %q does not mention %q", e.Msg, e.Details, text)
		}
	}
}

func TestBadInputLeavesNothing(t *testing.T) {
	for name, row := range map[string]struct {
		change func(n *cni.Node, c *call)
		code   uint
		texts  []string
	}{
		"no netns":               {func(_ *cni.Node, c *call) { c.netns = "" }, 4, []string{"CNI_NETNS"}},
		"netns is missing":       {func(_ *cni.Node, c *call) { c.netns = "/run/netns/no-such" }, 4, []string{"CNI_NETNS", "/run/netns/no-such", "no such file"}},
		"netns is a file":        {func(_ *cni.Node, c *call) { c.netns = "/etc/hostname" }, 4, []string{"is no network namespace"}},
		"netns is a mount ns":    {func(_ *cni.Node, c *call) { c.netns = "/proc/self/ns/mnt" }, 4, []string{"is no network namespace"}},
		"netns is the host's":    {func(_ *cni.Node, c *call) { c.netns = "/proc/self/ns/net" }, 4, []string{"host's own"}},
		"container with a slash": {func(_ *cni.Node, c *call) { c.id = "a/b" }, 4, []string{"CNI_CONTAINERID", "a/b"}},
		"interface name too long": {func(_ *cni.Node, c *call) { c.ifName = "sixteen-letters-" }, 4,
			[]string{"CNI_IFNAME", "too long", "15"}},
		"interface name with a slash": {func(_ *cni.Node, c *call) { c.ifName = "a/b" }, 4, []string{"CNI_IFNAME", "a/b"}},
		"no container":                {func(_ *cni.Node, c *call) { c.id = "" }, 4, []string{"CNI_CONTAINERID"}},
		"unknown command":             {func(_ *cni.Node, c *call) { c.command = "MOVE" }, 4, []string{"MOVE"}},
		"args without value":          {func(_ *cni.Node, c *call) { c.args = "IgnoreUnknown" }, 4, []string{"CNI_ARGS", "IgnoreUnknown"}},
		"unknown args":                {func(_ *cni.Node, c *call) { c.args = "MAC=02:00:00:00:00:01" }, 4, []string{"MAC", "IgnoreUnknown=1"}},
		"no JSON":                     {func(_ *cni.Node, c *call) { c.conf = "cniVersion: 1.0.0" }, 6, nil},
		"version of the future":       {func(_ *cni.Node, c *call) { c.conf = strings.Replace(c.conf, "1.0.0", "9.0.0", 1) }, 1, []string{"9.0.0"}},
		"unknown key": {func(n *cni.Node, c *call) { c.conf = pods(n, "1.0.0", range4, `"mut":1450,`) }, 7,
			[]string{"mut: unknown key with value 1450", "mtu"}},
		"unknown key of ipam": {func(_ *cni.Node, c *call) { c.conf = strings.Replace(c.conf, "dataDir", "datadir", 1) }, 7,
			[]string{"ipam.datadir: unknown key", "dataDir"}},
		"unknown key of a range": {func(n *cni.Node, c *call) {
			c.conf = pods(n, "1.0.0", `[{"subnet":"10.244.1.0/24","rangeStop":"10.244.1.9"}]`, "")
		}, 7,
			[]string{"ipam.ranges[0][0].rangeStop", "10.244.1.9", "rangeEnd"}},
		"mtu of a wrong type": {func(_ *cni.Node, c *call) { c.conf = strings.Replace(c.conf, "1450", `"1450"`, 1) }, 7, []string{`mtu: cannot use "1450"`}},
		"mtu too small for IPv6": {func(n *cni.Node, c *call) {
			c.conf = strings.Replace(pods(n, "1.0.0", range6, ""), "1450", "1200", 1)
		}, 7,
			[]string{"mtu: 1200", "1280"}},
		"no ipam":   {func(_ *cni.Node, c *call) { c.conf = `{"cniVersion":"1.0.0","name":"pods","type":"poplin"}` }, 7, []string{"ipam: missing"}},
		"no ranges": {func(n *cni.Node, c *call) { c.conf = pods(n, "1.0.0", "", "") }, 7, []string{"ipam.ranges"}},
		"IPAM plugin not installed": {func(_ *cni.Node, c *call) { c.conf = strings.Replace(c.conf, "host-local", "no-such-ipam", 1) }, 7,
			[]string{"no-such-ipam", "CNI_PATH"}},
		"subnet with host bits": {func(n *cni.Node, c *call) { c.conf = pods(n, "1.0.0", `[{"subnet":"10.244.1.7/24"}]`, "") }, 7, []string{"10.244.1.7/24", "10.244.1.0/24"}},
		"one range in two sets": {func(n *cni.Node, c *call) { c.conf = pods(n, "1.0.0", range4+","+range4, "") }, 7, []string{"overlaps"}},
		"capability of others": {func(n *cni.Node, c *call) {
			c.conf = pods(n, "1.0.0", range4, `"capabilities":{"infinibandGUID":true},`)
		}, 7,
			[]string{"capabilities.infinibandGUID"}},
		"static address elsewhere": {func(n *cni.Node, c *call) { c.conf = pods(n, "1.0.0", range4, `"runtimeConfig":{"ips":["10.9.9.9"]},`) }, 7,
			[]string{"runtimeConfig.ips", "10.9.9.9"}},
		"node address of another node": {func(n *cni.Node, c *call) { c.conf = pods(n, "1.0.0", range4, `"nodeAddresses":["192.0.2.9"],`) }, 999,
			[]string{"192.0.2.9", "nodeAddresses"}},
		"IPAM's directory cannot be made": {func(n *cni.Node, c *call) { c.conf = strings.Replace(c.conf, n.Dir, "/proc/nowhere", 1) }, 5,
			[]string{"/proc/nowhere"}},
	} {
		t.Run(name, func(t *testing.T) {
			n, p := node(t), pod(t)
			c := call{"ADD", p.ID, p.Path(), "eth0", "", pods(n, "1.0.0", range4+","+range6, "")}
			row.change(n, &c)
			stdout, err := c.run(n)
			refused(t, stdout, err, row.code, row.texts...)
			empty(t, n, p)
		})
	}
}

func TestRangeExhausted(t *testing.T) {
	n := node(t)
	// A /29 has six addresses less the gateway's.
	l := list(t, pods(n, "1.0.0", range6+`,[{"subnet":"10.244.1.0/29"}]`, ""))
	var all []*cni.Pod
	for range 5 {
		p := pod(t)
		add(t, n, l, p)
		all = append(all, p)
	}
	before := len(reservations(t, n))
	p := pod(t)
	c := call{"ADD", p.ID, p.Path(), "eth0", "", pods(n, "1.0.0", range6+`,[{"subnet":"10.244.1.0/29"}]`, "")}
	stdout, err := c.run(n)
	refused(t, stdout, err, 11, "no free address", "10.244.1.2-10.244.1.7")
	if after := len(reservations(t, n)); after != before {
		t.Errorf("%d reservations before, %d after: the IPv6 one is not undone", before, after)
	}
	empty := state(t, p.Link)
	if len(empty) > 0 {
		t.Errorf("pod has %v", empty)
	}
	// The next free address is found wherever it is.
	if err := n.Del(l, all[2]); err != nil {
		t.Fatal(err)
	}
	if r := add(t, n, l, p); r.IPs[1].Address.IP.String() != "10.244.1.4" {
		t.Errorf("got %s, want the released 10.244.1.4", r.IPs[1].Address.IP)
	}
}

func TestAddTwiceLeavesTheFirst(t *testing.T) {
	n := node(t)
	nodeAddrs(t, n)
	conf := pods(n, "1.0.0", range4+","+range6, "")
	l := list(t, conf)
	p := pod(t)
	r := add(t, n, l, p)
	before := fmt.Sprint(reservations(t, n), state(t, n.Link), state(t, p.Link))
	again := call{"ADD", p.ID, p.Path(), p.If, "", conf}
	stdout, err := again.run(n)
	refused(t, stdout, err, 100, "exists already", "DEL")
	if after := fmt.Sprint(reservations(t, n), state(t, n.Link), state(t, p.Link)); after != before {
		t.Errorf("before %s\nafter  %s", before, after)
	}
	reachNode(t, n, p, r)
	if err := n.Check(l, p); err != nil {
		t.Errorf("CHECK: %v", err)
	}

	// The same interface name for another container.
	other := again
	other.id = "other"
	stdout, err = other.run(n)
	refused(t, stdout, err, 100, "exists already", "eth0")
	if after := fmt.Sprint(reservations(t, n), state(t, n.Link), state(t, p.Link)); after != before {
		t.Errorf("before %s\nafter  %s", before, after)
	}
}

func TestResultThatNobodyReadsIsUndone(t *testing.T) {
	n, p := node(t), pod(t)
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	c := call{"ADD", p.ID, p.Path(), "eth0", "", pods(n, "1.0.0", range4+","+range6, "")}
	if err := n.ExecTo(full, "poplin", c.conf, "CNI_COMMAND=ADD", "CNI_CONTAINERID="+c.id, "CNI_NETNS="+c.netns, "CNI_IFNAME="+c.ifName); err == nil {
		t.Error("ADD succeeded without a result")
	}
	empty(t, n, p)
}

func TestDelNeedsNothing(t *testing.T) {
	for name, change := range map[string]func(*call){
		"nothing is missing":  func(*call) {},
		"no netns":            func(c *call) { c.netns = "" },
		"netns is gone":       func(c *call) { c.netns = "/run/netns/gone" },
		"other ranges by now": func(c *call) { c.conf = strings.ReplaceAll(c.conf, "10.244.1.0/24", "10.99.0.0/24") },
		"ranges are invalid":  func(c *call) { c.conf = strings.ReplaceAll(c.conf, "10.244.1.0/24", "10.244.1.0") },
		"mtu is invalid":      func(c *call) { c.conf = strings.ReplaceAll(c.conf, "1450", "14500000") },
	} {
		t.Run(name, func(t *testing.T) {
			n, p := node(t), pod(t)
			c := call{"ADD", p.ID, p.Path(), "eth0", "", pods(n, "1.0.0", range4+","+range6, "")}
			if stdout, err := c.run(n); err != nil {
				t.Fatalf("%v\n%s", err, stdout)
			}
			c.command = "DEL"
			change(&c)
			for range 2 {
				if stdout, err := c.run(n); err != nil {
					t.Errorf("%v\n%s", err, stdout)
				}
			}
			empty(t, n, p)
		})
	}
}

func TestDelAfterTheNamespaceIsGone(t *testing.T) {
	n, p := node(t), pod(t)
	l := list(t, pods(n, "1.0.0", range4+","+range6, ""))
	add(t, n, l, p)
	id := *p
	p.Close()
	if err := n.Del(l, &id); err != nil {
		t.Errorf("DEL: %v", err)
	}
	empty(t, n)
}

// TestKilledAdd kills ADD after ever more time, wherever it then is: DEL puts
// all right.
func TestKilledAdd(t *testing.T) {
	n := node(t)
	conf := pods(n, "1.0.0", range4+","+range6, "")
	completed := 0
	for delay := time.Duration(0); completed < 3 && delay < 50*time.Millisecond; delay += 150 * time.Microsecond {
		p := pod(t)
		c := call{"ADD", p.ID, p.Path(), "eth0", "", conf}
		killed, err := n.ExecKilled(delay, "poplin", c.conf, "CNI_COMMAND=ADD", "CNI_CONTAINERID="+c.id, "CNI_NETNS="+c.netns, "CNI_IFNAME="+c.ifName)
		if err != nil {
			t.Fatal(err)
		}
		if !killed {
			completed++
		}
		for _, r := range reservations(t, n) {
			b, err := os.ReadFile(n.Dir + "/ipam/pods/" + r)
			if want := p.ID + "\r\neth0"; net.ParseIP(r) != nil && (err != nil || string(b) != want) {
				t.Errorf("killed after %v: reservation %s holds %q, want %q", delay, r, b, want)
			}
		}
		c.command = "DEL"
		if stdout, err := c.run(n); err != nil {
			t.Fatalf("DEL after ADD was killed after %v: %v\n%s", delay, err, stdout)
		}
		empty(t, n, p)
		p.Close()
		if t.Failed() {
			return
		}
	}
	if completed == 0 {
		t.Error("no ADD outlived its killer: nothing was shown about its last steps")
	}
}

func TestCheckFindsWhatIsMissing(t *testing.T) {
	for name, break_ := range map[string]func(*testing.T, *cni.Node, *cni.Pod, *types100.Result){
		"address": func(t *testing.T, _ *cni.Node, p *cni.Pod, r *types100.Result) {
			eth0 := link(t, p.Link, "eth0")
			no(t, p.Link.AddrDel(eth0, &netlink.Addr{IPNet: &r.IPs[0].Address}))
		},
		"host route": func(t *testing.T, n *cni.Node, _ *cni.Pod, r *types100.Result) {
			no(t, n.Link.RouteDel(&netlink.Route{Dst: &r.IPs[1].Address}))
		},
		"default route": func(t *testing.T, _ *cni.Node, p *cni.Pod, r *types100.Result) {
			no(t, p.Link.RouteDel(&netlink.Route{Dst: &r.Routes[0].Dst, Gw: r.Routes[0].GW}))
		},
		"neighbour": func(t *testing.T, n *cni.Node, _ *cni.Pod, r *types100.Result) {
			host := link(t, n.Link, r.Interfaces[0].Name)
			no(t, n.Link.NeighDel(&netlink.Neigh{LinkIndex: host.Attrs().Index, IP: r.IPs[0].Address.IP}))
		},
		"link": func(t *testing.T, n *cni.Node, _ *cni.Pod, r *types100.Result) {
			no(t, n.Link.LinkDel(link(t, n.Link, r.Interfaces[0].Name)))
		},
		"MTU": func(t *testing.T, _ *cni.Node, p *cni.Pod, _ *types100.Result) {
			no(t, p.Link.LinkSetMTU(link(t, p.Link, "eth0"), 1300))
		},
		"down": func(t *testing.T, _ *cni.Node, p *cni.Pod, _ *types100.Result) {
			no(t, p.Link.LinkSetDown(link(t, p.Link, "eth0")))
		},
		"reservation": func(t *testing.T, n *cni.Node, _ *cni.Pod, r *types100.Result) {
			no(t, os.Remove(n.Dir+"/ipam/pods/"+r.IPs[0].Address.IP.String()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			n, p := node(t), pod(t)
			l := list(t, pods(n, "1.1.0", range4+","+range6, ""))
			r := add(t, n, l, p)
			no(t, n.Check(l, p))
			break_(t, n, p, r)
			if err := n.Check(l, p); err == nil {
				t.Error("CHECK is content")
			} else {
				t.Log(err)
			}
			no(t, n.Del(l, p))
			empty(t, n, p)
		})
	}
}

func link(t *testing.T, h *netlink.Handle, name string) netlink.Link {
	t.Helper()
	l, err := h.LinkByName(name)
	no(t, err)
	return l
}

func no(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
