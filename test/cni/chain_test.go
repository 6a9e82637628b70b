package cni_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/test/need"
)

func TestMACOfTheRuntimesChoice(t *testing.T) {
	const want = "02:00:5e:10:00:01"
	n := node(t)
	nodeAddrs(t, n)
	l := list(t, pods(n, "1.0.0", range4+","+range6, `"capabilities":{"mac":true},`))
	p, other := pod(t), pod(t)
	p.Capabilities = map[string]any{"mac": strings.ToUpper(want)}
	r := add(t, n, l, p)
	if got := link(t, p.Link, "eth0").Attrs().HardwareAddr.String(); got != want || r.Interfaces[1].Mac != want {
		t.Errorf("pod has %s, result %s, want %s", got, r.Interfaces[1].Mac, want)
	}
	reachNode(t, n, p, r)
	reach(t, p, r, other, add(t, n, l, other))
	no(t, n.Check(l, p))
	no(t, n.Del(l, p))
	no(t, n.Del(l, other))
	empty(t, n, p, other)

	c := call{"ADD", p.ID, p.Path(), "eth0", "", pods(n, "1.0.0", range4, `"runtimeConfig":{"mac":"01:00:5e:00:00:01"},`)}
	stdout, err := c.run(n)
	refused(t, stdout, err, 7, "runtimeConfig.mac", "01:00:5e:00:00:01", "unicast")
	empty(t, n, p)
}

// TestCheckToleratesLaterPlugins: those of a chain may change what this one
// made, as long as the result says so or does not tell.
func TestCheckToleratesLaterPlugins(t *testing.T) {
	need.Program(t, upstream+"/tuning", "containernetworking-plugins")
	for name, tuning := range map[string]string{
		"MTU":     `"mtu":1400`,
		"sysctls": `"sysctl":{"net.ipv4.conf.eth0.rp_filter":"1"}`,
		"nothing": `"promisc":false`,
	} {
		t.Run(name, func(t *testing.T) {
			n, p := node(t), pod(t)
			l := list(t, fmt.Sprintf(`{"cniVersion":"1.0.0","name":"pods","plugins":[%s,{"type":"tuning",%s}]}`,
				pods(n, "1.0.0", range4+","+range6, ""), tuning))
			add(t, n, l, p)
			no(t, n.Check(l, p))
			// The daemon may have written another MTU since.
			later := list(t, strings.Replace(string(l.Bytes), `"mtu":1450`, `"mtu":1300`, 1))
			no(t, n.Check(later, p))
			no(t, n.Del(l, p))
			empty(t, n, p)
		})
	}
	// A route that a later plugin took away is not in prevResult.
	n, p := node(t), pod(t)
	conf := pods(n, "1.1.0", range4+","+range6, "")
	r := add(t, n, list(t, conf), p)
	gone := r.Routes[0]
	for _, route := range routes(t, p.Link) {
		if route.Gw.Equal(gone.GW) {
			no(t, p.Link.RouteDel(&route))
		}
	}
	c := call{"CHECK", p.ID, p.Path(), "eth0", "", withPrev(t, conf, r)}
	stdout, err := c.run(n)
	refused(t, stdout, err, 999, "no route to 0.0.0.0/0")
	r.Routes = r.Routes[1:]
	c.conf = withPrev(t, conf, r)
	if stdout, err := c.run(n); err != nil {
		t.Errorf("%v\n%s", err, stdout)
	}
	no(t, n.Del(list(t, conf), p))
	empty(t, n, p)
}

// TestSecondInterface: as Multus has it, a pod gets interfaces of several networks,
// by their CNI_IFNAMEs. Each network's are its own, whoever goes first.
func TestSecondInterface(t *testing.T) {
	need.Program(t, upstream+"/bridge", "containernetworking-plugins")
	const bridge = `{"cniVersion":"1.0.0","name":"storage","plugins":[{"type":"bridge","bridge":"storage0",` +
		`"ipam":{"type":"host-local","ranges":[[{"subnet":"192.168.77.0/24"}]],"dataDir":%q}}]}`
	for name, last := range map[string]string{"the pod network's goes last": "eth0", "the other one goes last": "net1"} {
		t.Run(name, func(t *testing.T) {
			n, p, other := node(t), pod(t), pod(t)
			nodeAddrs(t, n)
			main, second := list(t, pods(n, "1.0.0", range4+","+range6, "")), list(t, fmt.Sprintf(bridge, t.TempDir()))
			r, ro := add(t, n, main, p), add(t, n, main, other)
			p.If = "net1"
			rs := add(t, n, second, p)
			if len(rs.IPs) != 1 || rs.IPs[0].Address.IP.String() != "192.168.77.2" {
				t.Errorf("the second network gave %v", rs.IPs)
			}
			for _, l := range []string{"eth0", "net1"} {
				link(t, p.Link, l)
			}
			p.If = "eth0"
			no(t, n.Check(main, p))
			reach(t, p, r, other, ro)
			reachNode(t, n, p, r)
			for _, ifname := range map[string][]string{"eth0": {"net1", "eth0"}, "net1": {"eth0", "net1"}}[last] {
				p.If = ifname
				no(t, n.Del(map[string]*libcni.NetworkConfigList{"eth0": main, "net1": second}[ifname], p))
				if ifname == "eth0" && last == "net1" {
					link(t, p.Link, "net1")
				}
			}
			no(t, n.Del(main, other))
			storage, err := n.Link.LinkByName("storage0") // its own plugin leaves it
			no(t, err)
			no(t, n.Link.LinkDel(storage))
			empty(t, n, p, other)
		})
	}
}

func routes(t *testing.T, h *netlink.Handle) []netlink.Route {
	t.Helper()
	all, err := h.RouteList(nil, netlink.FAMILY_ALL)
	no(t, err)
	return all
}

// withPrev is a configuration with a previous result.
func withPrev(t *testing.T, conf string, r *types100.Result) string {
	t.Helper()
	r.CNIVersion = "1.1.0"
	b, err := json.Marshal(r)
	no(t, err)
	return strings.TrimSuffix(conf, "}") + `,"prevResult":` + string(b) + "}"
}

// TestAddAfterOtherPlugins: the result of a chain is that of those before, and
// ours; CHECK and DEL find their own in it.
func TestAddAfterOtherPlugins(t *testing.T) {
	n, p := node(t), pod(t)
	const before = `,"prevResult":{"cniVersion":"1.1.0","interfaces":[{"name":"net7","sandbox":"/x"}],` +
		`"ips":[{"address":"192.0.2.5/24","interface":0}],"routes":[{"dst":"192.0.2.0/24"}],"dns":{"nameservers":["192.0.2.53"]}}}`
	conf := strings.TrimSuffix(pods(n, "1.1.0", range4+","+range6, ""), "}")
	c := call{"ADD", p.ID, p.Path(), "eth0", "", conf + before}
	out, err := c.run(n)
	if err != nil {
		t.Fatalf("%v, %s", err, out)
	}
	var r types100.Result
	no(t, json.Unmarshal(out, &r))
	if len(r.Interfaces) != 3 || r.Interfaces[0].Name != "net7" || r.Interfaces[2].Name != "eth0" || len(r.Routes) != 3 || len(r.DNS.Nameservers) != 1 {
		t.Errorf("result %s", out)
	}
	if len(r.IPs) != 3 || r.IPs[0].Address.String() != "192.0.2.5/24" || *r.IPs[0].Interface != 0 || *r.IPs[1].Interface != 2 || *r.IPs[2].Interface != 2 {
		t.Errorf("addresses %s", out)
	}
	for _, command := range []string{"CHECK", "DEL"} {
		c.command, c.conf = command, conf+`,"prevResult":`+string(out)+"}"
		if out, err := c.run(n); err != nil {
			t.Errorf("%s: %v, %s", command, err, out)
		}
	}
	empty(t, n, p)
}
