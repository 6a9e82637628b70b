package cni_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/overlay"
)

// TestWhatAddMakes compares the kernel with docs/cni.md.
func TestWhatAddMakes(t *testing.T) {
	n, p := node(t), pod(t)
	nodeAddrs(t, n)
	// Defaults that would do harm, as some distributions and runtimes set them.
	set(t, n.Do, "ipv6/conf/default/accept_ra", "2")
	set(t, n.Do, "ipv4/conf/default/rp_filter", "1")
	set(t, p.Do, "ipv6/conf/default/disable_ipv6", "1")
	conf := pods(n, "1.0.0", range4+","+range6, fmt.Sprintf(`"nodeAddresses":[%q,%q],`, nodeAddr4, nodeAddr6))
	conf = strings.Replace(conf, `"dataDir"`, `"routes":[{"dst":"10.8.0.0/16","mtu":1300}],"dataDir"`, 1)
	l := list(t, conf)
	r := add(t, n, l, p)

	host := link(t, n.Link, r.Interfaces[0].Name).Attrs()
	inner := link(t, p.Link, "eth0").Attrs()
	if host.Group != 0x706c || host.Alias != "pods:default/"+p.ID || host.MTU != 1450 || !strings.HasPrefix(host.Name, "plw") {
		t.Errorf("host's end: group %#x, alias %q, MTU %d, name %s", host.Group, host.Alias, host.MTU, host.Name)
	}
	if inner.MTU != 1450 || inner.HardwareAddr.String() != r.Interfaces[1].Mac || r.Interfaces[1].Sandbox != p.Path() {
		t.Errorf("pod's end: MTU %d, MAC %s, result %v", inner.MTU, inner.HardwareAddr, r.Interfaces[1])
	}
	if addrs, err := n.Link.AddrList(link(t, n.Link, host.Name), netlink.FAMILY_ALL); err != nil || len(addrs) > 0 {
		t.Errorf("host's end has addresses %v, %v", addrs, err)
	}
	settings := []struct{ name, want string }{
		{"ipv4/ip_forward", "1"}, {"ipv6/conf/all/forwarding", "1"},
		{"ipv6/conf/" + host.Name + "/addr_gen_mode", "1"}, {"ipv4/conf/" + host.Name + "/route_localnet", "0"},
	}
	// What the daemon keeps so has nothing to do for a new pod.
	for _, s := range overlay.PodSettings() {
		settings = append(settings, struct{ name, want string }{fmt.Sprintf("%s/conf/%s/%s", s.Family, host.Name, s.Name), fmt.Sprint(s.Value)})
	}
	for _, s := range settings {
		if got := get(t, n.Do, s.name); got != s.want {
			t.Errorf("net/%s is %s, want %s", s.name, got, s.want)
		}
	}
	for _, s := range []struct{ name, want string }{
		{"ipv6/conf/eth0/accept_ra", "0"}, {"ipv6/conf/eth0/disable_ipv6", "0"},
	} {
		if got := get(t, p.Do, s.name); got != s.want {
			t.Errorf("in the pod net/%s is %s, want %s", s.name, got, s.want)
		}
	}
	for i, src := range []string{nodeAddr4.String(), nodeAddr6.String()} {
		routes, err := n.Link.RouteGet(r.IPs[i].Address.IP)
		if err != nil || len(routes) != 1 || routes[0].Src.String() != src || routes[0].LinkIndex != host.Index {
			t.Errorf("route to %s: %v, %v", r.IPs[i].Address.IP, routes, err)
		}
		all, err := n.Link.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Dst: &r.IPs[i].Address}, netlink.RT_FILTER_DST)
		if err != nil || len(all) != 1 || all[0].Protocol != 157 {
			t.Errorf("route to %s: %v, %v", r.IPs[i].Address.IP, all, err)
		}
	}
	if routes, err := p.Link.RouteGet([]byte{10, 8, 7, 6}); err != nil || len(routes) != 1 || routes[0].MTU != 1300 || routes[0].Gw.String() != "169.254.1.1" {
		t.Errorf("route to 10.8.7.6 in the pod: %v, %v", routes, err)
	}
	no(t, n.Check(l, p))
	no(t, n.Del(l, p))
	empty(t, n, p)
}

func TestDefaultMTU(t *testing.T) {
	for name, row := range map[string]struct {
		mtu  int
		want int
	}{"no default route": {0, 1500}, "default route": {1400, 1400}, "jumbo": {9000, 9000}} {
		t.Run(name, func(t *testing.T) {
			n, p := node(t), pod(t)
			if row.mtu > 0 {
				underlay := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", MTU: row.mtu}, PeerName: "eth1"}
				no(t, n.Link.LinkAdd(underlay))
				no(t, n.Link.LinkSetUp(underlay))
				_, any, err := net.ParseCIDR("0.0.0.0/0")
				no(t, err)
				no(t, n.Link.RouteAdd(&netlink.Route{LinkIndex: underlay.Index, Dst: any, Scope: unix.RT_SCOPE_LINK}))
			}
			l := list(t, strings.Replace(pods(n, "1.0.0", range4, ""), `"mtu":1450,`, "", 1))
			r := add(t, n, l, p)
			if got := link(t, p.Link, "eth0").Attrs().MTU; got != row.want || r.Interfaces[1].Mtu != row.want {
				t.Errorf("MTU %d, result %d, want %d", got, r.Interfaces[1].Mtu, row.want)
			}
			no(t, n.Check(l, p))
		})
	}
}

func set(t *testing.T, in func(func()) error, name, value string) {
	t.Helper()
	var err error
	no(t, in(func() { err = os.WriteFile("/proc/sys/net/"+name, []byte(value), 0) }))
	no(t, err)
}

func get(t *testing.T, in func(func()) error, name string) string {
	t.Helper()
	var b []byte
	var err error
	no(t, in(func() { b, err = os.ReadFile("/proc/sys/net/" + name) }))
	no(t, err)
	return strings.TrimSpace(string(b))
}

// TestLeftOverRouteIsReplaced: IPAM says whose an address is, not a route that
// somebody forgot.
func TestLeftOverRouteIsReplaced(t *testing.T) {
	n, p := node(t), pod(t)
	stale := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "stale0"}, PeerName: "stale1"}
	no(t, n.Link.LinkAdd(stale))
	no(t, n.Link.LinkSetUp(stale))
	for _, dst := range []string{"10.244.1.2/32", "fd00:10:244:1::2/128"} {
		_, to, err := net.ParseCIDR(dst)
		no(t, err)
		no(t, n.Link.RouteAdd(&netlink.Route{LinkIndex: stale.Index, Dst: to, Scope: unix.RT_SCOPE_LINK}))
	}
	l := list(t, pods(n, "1.0.0", range4+","+range6, ""))
	r := add(t, n, l, p)
	host := link(t, n.Link, r.Interfaces[0].Name).Attrs()
	for _, ip := range r.IPs {
		if routes, err := n.Link.RouteGet(ip.Address.IP); err != nil || routes[0].LinkIndex != host.Index {
			t.Errorf("route to %s: %v, %v, want device %s", ip.Address.IP, routes, err, host.Name)
		}
	}
	no(t, n.Check(l, p))
	no(t, n.Del(l, p))
	no(t, n.Link.LinkDel(stale))
	empty(t, n, p)
}
