//go:build e2e

package fault

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/test/await"
	testcluster "poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/forge"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/load"
	"poplin.dev/poplin/test/webapp"
)

// earPort is where the pod on the victim's node listens for what is forged.
const earPort = 9

// guards are what pods try, and what the same packet does from whom it is
// genuine.
type guards struct {
	heard    func() map[string]int
	attempts []attempt
	round    int
}

type attempt struct {
	who     string
	genuine bool
	from    load.Place
	send    func(text string) error
}

func guarded(t *testing.T, c *testcluster.Cluster, pods map[string]webapp.Pod) *guards {
	t.Helper()
	to := netip.AddrPortFrom(pods[victim].IPs[0], earPort)
	in := func(node string) load.Place { return live.Pod(t, c, node, pods[node].IPs[0]) }
	addr, mac := vteps(t, c)
	tunnelled := func(text string) error {
		from := netip.AddrPortFrom(pods[peer].IPs[0], earPort)
		return forge.Send(netip.IPv4Unspecified(), netip.AddrPortFrom(addr[victim], 8472), forge.VXLAN(mac[peer], mac[victim], from, to, text))
	}
	plain := func(from netip.Addr) func(string) error {
		return func(text string) error { return forge.Send(from, to, text) }
	}
	return &guards{
		heard: forge.Hear(t, in(victim), earPort),
		attempts: []attempt{
			{"a pod of the node, with an overlay packet", false, in(victim), tunnelled},
			{"a pod of another node, with an overlay packet", false, in(peer), tunnelled},
			{"a pod under another pod's address", false, in(peer), plain(pods[first].IPs[0])},
			{"a pod under nobody's address", false, in(peer), plain(netip.MustParseAddr("198.51.100.1"))},
			// Last, so that what came before them would have been heard.
			{"another node, with an overlay packet", true, load.In(c.Namespace(peer)), tunnelled},
			{"a pod under its own address", true, in(peer), plain(pods[peer].IPs[0])},
		},
	}
}

// hold tries everything once more.
func (g *guards) hold(t testing.TB) {
	t.Helper()
	g.round++
	text := func(a attempt) string { return fmt.Sprintf("%s, round %d", a.who, g.round) }
	for _, a := range g.attempts {
		if err := a.from(func() error { return a.send(text(a)) }); err != nil {
			t.Fatalf("%s: %v", a.who, err)
		}
		if a.genuine {
			await.Success(t, 5*time.Second, func() error {
				if g.heard()[text(a)] == 0 {
					return fmt.Errorf("%s was not heard", text(a))
				}
				return nil
			})
		}
	}
	for _, a := range g.attempts {
		if !a.genuine && g.heard()[text(a)] > 0 {
			t.Errorf("%s was heard", text(a))
		}
	}
}

// vteps are the nodes' tunnel ends.
func vteps(t testing.TB, c *testcluster.Cluster) (addr map[string]netip.Addr, mac map[string]cluster.MAC) {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct {
				VTEP struct {
					Address netip.Addr
					MAC     string
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(run(t, c, "get", "nodenetworks", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	addr, mac = map[string]netip.Addr{}, map[string]cluster.MAC{}
	for _, n := range list.Items {
		parsed, err := cluster.ParseMAC(n.Spec.VTEP.MAC)
		if err != nil {
			t.Fatal(err)
		}
		addr[n.Metadata.Name], mac[n.Metadata.Name] = n.Spec.VTEP.Address, parsed
	}
	return addr, mac
}
