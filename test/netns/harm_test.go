package netns

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/soak"
	"poplin.dev/poplin/test/space"
)

// watchedSettings are sysctls that the node keeps, with a wrong value each.
// The last ones are those of a pod's link.
func watchedSettings(podLink string) map[string]string {
	return map[string]string{
		"ipv4/ip_forward":                      "0",
		"ipv6/conf/all/forwarding":             "0",
		"ipv4/conf/poplin-vx/rp_filter":        "1",
		"ipv4/conf/poplin-vx/send_redirects":   "1",
		"ipv6/conf/poplin-vx/accept_ra":        "2",
		"ipv6/conf/poplin-vx/accept_redirects": "1",
		"ipv6/conf/poplin-vx/autoconf":         "1",

		"ipv4/conf/" + podLink + "/rp_filter":        "1",
		"ipv4/conf/" + podLink + "/accept_redirects": "1",
		"ipv6/conf/" + podLink + "/accept_ra":        "2",
	}
}

func (n *node) readSettings(t testing.TB, podLink string) string {
	t.Helper()
	var b strings.Builder
	if err := n.Do(func() error {
		for key := range watchedSettings(podLink) {
			text, err := os.ReadFile("/proc/sys/net/" + key)
			if errors.Is(err, os.ErrNotExist) {
				continue // of a device that is being made anew
			}
			if err != nil {
				return err
			}
			b.WriteString(key + " = " + string(text))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// whole is everything that the node keeps, but for nftables.
func (n *node) whole(t testing.TB, podLink string) string {
	t.Helper()
	lines := strings.Split(n.inventory(t), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n") + n.readSettings(t, podLink)
}

// TestRandomHarm: whatever of ours another program deletes or changes is back
// within a second.
func TestRandomHarm(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 3)
	l.startAll(t)
	n := l.nodes[0]
	a, b := n.addPod(t), l.nodes[1].addPod(t)
	reach(t, a, b)
	const podLink = "plw2"
	harms := n.harms(t, podLink)
	// The link that the lab makes by hand gets its settings from the module.
	var good string
	await.Success(t, 3*time.Second, func() error {
		good = n.whole(t, podLink)
		if !strings.Contains(good, podLink+"/accept_ra = 0") || !strings.Contains(good, podLink+"/accept_redirects = 0") {
			return errors.New("the pod's link has not its settings")
		}
		return nil
	})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	dice := rand.New(rand.NewPCG(seed, 0))
	slowest := time.Duration(0)
	for range soak.Times(200) {
		h := harms[dice.IntN(len(harms))]
		start := time.Now()
		if err := h.do(); err != nil {
			t.Fatalf("%s: %v", h.what, err)
		}
		await.Success(t, time.Second, func() error {
			if now := n.whole(t, podLink); now != good {
				return fmt.Errorf("%s:\n%s\nwant\n%s", h.what, now, good)
			}
			return nil
		})
		slowest = max(slowest, time.Since(start))
	}
	t.Logf("slowest: whole again after %v", slowest.Round(time.Millisecond))
	meet(t, a, b)
}

type harm struct {
	what string
	do   func() error
}

// harms is everything that can be done to what the node keeps for the peer
// with number 2, to its device and to its settings.
func (n *node) harms(t testing.TB, podLink string) []harm {
	vx := func() netlink.Link { return n.Link(t, device) }
	index := func() int { return vx().Attrs().Index }
	wrongMAC, peerMAC := net.HardwareAddr{2, 0, 0, 0, 0, 9}, cluster.MACOf("uid-2")
	list := []harm{
		{"MTU", func() error { return n.NL.LinkSetMTU(vx(), 1300) }},
		{"MAC", func() error { return n.NL.LinkSetHardwareAddr(vx(), wrongMAC) }},
		{"device down", func() error { return n.NL.LinkSetDown(vx()) }},
		{"device deleted", func() error { return n.NL.LinkDel(vx()) }},
		{"forwarding entry deleted", func() error {
			return n.NL.NeighDel(&netlink.Neigh{LinkIndex: index(), Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF,
				IP: net.IPv4(192, 0, 2, 2), HardwareAddr: peerMAC[:]})
		}},
		{"forwarding entry changed", func() error {
			return n.NL.NeighSet(&netlink.Neigh{LinkIndex: index(), Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF,
				State: netlink.NUD_PERMANENT, IP: net.IPv4(192, 0, 2, 77), HardwareAddr: peerMAC[:]})
		}},
		{"forwarding entry added", func() error {
			return n.NL.NeighSet(&netlink.Neigh{LinkIndex: index(), Family: unix.AF_BRIDGE, Flags: netlink.NTF_SELF,
				State: netlink.NUD_PERMANENT, IP: net.IPv4(192, 0, 2, 77), HardwareAddr: wrongMAC})
		}},
		{"all addresses deleted", func() error {
			return errors.Join(n.NL.AddrDel(vx(), &netlink.Addr{IPNet: space.IPNet(netip.MustParsePrefix("10.244.1.0/32"))}),
				n.NL.AddrDel(vx(), &netlink.Addr{IPNet: space.IPNet(netip.MustParsePrefix("fd00:10:244:1::/128"))}))
		}},
		{"address added", func() error {
			return n.NL.AddrAdd(vx(), &netlink.Addr{IPNet: space.IPNet(netip.MustParsePrefix("203.0.113.1/32"))})
		}},
	}
	for _, family := range []string{"4", "6"} {
		own, peer := podCIDR(family, 1), podCIDR(family, 2)
		list = append(list,
			harm{"route deleted", func() error { return n.NL.RouteDel(&netlink.Route{Dst: space.IPNet(peer), LinkIndex: index()}) }},
			harm{"route changed", func() error {
				return n.NL.RouteReplace(&netlink.Route{Dst: space.IPNet(peer), LinkIndex: index(), Protocol: 157,
					Gw: podCIDR(family, 3).Addr().AsSlice(), Flags: int(netlink.FLAG_ONLINK), Priority: map[string]int{"6": 1024}[family]})
			}},
			harm{"own range's route deleted", func() error {
				return n.NL.RouteDel(&netlink.Route{Dst: space.IPNet(own), Type: unix.RTN_UNREACHABLE, Priority: 4096})
			}},
			harm{"neighbour deleted", func() error {
				return n.NL.NeighDel(&netlink.Neigh{LinkIndex: index(), IP: peer.Addr().AsSlice(), HardwareAddr: peerMAC[:]})
			}},
			harm{"neighbour changed", func() error {
				return n.NL.NeighSet(&netlink.Neigh{LinkIndex: index(), State: netlink.NUD_PERMANENT, IP: peer.Addr().AsSlice(), HardwareAddr: wrongMAC})
			}},
			harm{"neighbour no longer permanent", func() error {
				return n.NL.NeighSet(&netlink.Neigh{LinkIndex: index(), State: netlink.NUD_STALE, IP: peer.Addr().AsSlice(), HardwareAddr: peerMAC[:]})
			}},
		)
	}
	for key, wrong := range watchedSettings(podLink) {
		list = append(list, harm{"sysctl " + key, func() error {
			return n.Do(func() error { return os.WriteFile("/proc/sys/net/"+key, []byte(wrong), 0) })
		}})
	}
	return list
}
