package flow

import (
	"fmt"
	"net/netip"
	"os/exec"
	"testing"

	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/space"
)

// cacheRules are the ones that NodeLocal DNSCache's program keeps in the raw
// table for each address it serves, in its iptables mode: what is for the cache
// or from it is not tracked, so that nobody translates it. (k8s.io/dns,
// cmd/node-cache/app.)
var cacheRules = [][3]string{{"PREROUTING", "-d", "--dport"}, {"OUTPUT", "-d", "--dport"}, {"OUTPUT", "-s", "--sport"}}

// TestNodeLocalDNSCache: a server of the node that takes a cluster address for
// its own answers there, to pods and to the node; its questions to the real
// endpoints go by another Service; when it ends, the endpoints answer again.
func TestNodeLocalDNSCache(t *testing.T) {
	l := newLab(t)
	protocols := []service.Protocol{service.UDP, service.TCP}
	for name, place := range map[string]string{"kube-dns": "vip", "kube-dns-upstream": "unassigned"} {
		o := serviceOf(func(o *object) {
			o.Name, o.Type, o.ClusterIPs = name, service.ClusterIP, both(place)
			o.Ports[0].NodePort = 0
			o.Ports = append(o.Ports, o.Ports[0])
			o.Ports[1].Name, o.Ports[1].Protocol = "udp", service.UDP
			for i := range o.slices {
				s := &o.slices[i]
				s.Name, s.Service = fmt.Sprint(name, "-", i), name
				s.Ports = append(s.Ports, s.Ports[0])
				s.Ports[1].Name, s.Ports[1].Protocol = "udp", service.UDP
			}
		}, "remote")
		l.table.Set(o.Service, o.slices)
	}
	l.sync(t)
	check := func(when string, flows ...flow) {
		t.Helper()
		for _, f := range flows {
			for _, p := range protocols {
				for _, ipv6 := range []bool{false, true} {
					if got := l.ask(t, f.from, f.to, p, f.port, ipv6); got != f.want {
						t.Errorf("%s: %s to %s by %s, IPv6 %v: %q, want %q", when, f.from, f.to, p, ipv6, got, f.want)
					}
				}
			}
		}
	}
	upstream := flow{"node", "unassigned", 80, "remote:8080 sees node"}
	without := []flow{{"pod1", "vip", 80, "remote:8080 sees pod1"}, {"node", "vip", 80, "remote:8080 sees node"}, upstream}
	check("without a cache", without...)

	// A bridge stands for the cache's dummy device, which not every kernel has.
	if err := l.node.NL.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "nodelocaldns"}}); err != nil {
		t.Fatal(err)
	}
	l.node.Up(t, "nodelocaldns")
	served := []string{"vip", "cache"}
	for _, place := range served {
		for _, ipv6 := range []bool{false, true} {
			a := at(place, ipv6)
			l.node.AddAddr(t, "nodelocaldns", netip.PrefixFrom(a, a.BitLen()))
		}
		l.serve(t, place, l.node)
	}
	// The rules are what matters: tracked packets go where the Service leads.
	check("with addresses alone", without...)
	untrack := func(verb string) {
		for _, place := range served {
			for _, p := range protocols {
				for _, r := range cacheRules {
					for i, program := range []string{"iptables-nft", "ip6tables-nft"} {
						iptables(t, l.node, program, "-t", "raw", verb, r[0], "-p", p.String(), r[1], at(place, i == 1).String(), r[2], "80", "-j", "NOTRACK")
					}
				}
			}
		}
	}
	untrack("-I")
	check("with a cache",
		flow{"pod1", "vip", 80, "vip:80 sees pod1"}, flow{"node", "vip", 80, "vip:80 sees node"},
		flow{"pod1", "cache", 80, "cache:80 sees pod1"}, upstream)

	untrack("-D")
	if err := l.node.NL.LinkDel(l.node.Link(t, "nodelocaldns")); err != nil {
		t.Fatal(err)
	}
	check("after the cache", without...)
}

func iptables(t testing.TB, s *space.Space, program string, args ...string) {
	t.Helper()
	path := need.Program(t, program, "iptables")
	if err := s.Do(func() error {
		if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s %v: %w: %s", program, args, err, out)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
