package cni_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/daemon/podlinks"
	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cni"
)

// keeping is a node with the daemon's part that looks after pods' links.
func keeping(t *testing.T, resync time.Duration) (n *cni.Node, l *libcni.NetworkConfigList, repairs chan int) {
	t.Helper()
	n = node(t)
	nodeAddrs(t, n)
	l = list(t, pods(n, "1.1.0", range4+","+range6, fmt.Sprintf(`"nodeAddresses":[%q,%q],`, nodeAddr4, nodeAddr6)))
	repairs = make(chan int, 1000)
	m := podlinks.New(podlinks.Deps{
		Network: "pods", Cache: filepath.Join(n.Dir, "cache", "results"), Resync: resync,
		Addresses: func() []netip.Addr { return []netip.Addr{nodeAddr4, nodeAddr6} },
		Report: func(_ time.Duration, _ diff.Cause, repaired int, err error) {
			no(t, err)
			if repaired > 0 {
				repairs <- repaired
			}
		},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		var err error
		done <- errors.Join(n.Do(func() { err = m.Run(ctx) }), err)
	}()
	t.Cleanup(func() { stop(); no(t, <-done) })
	<-m.Ready()
	return n, l, repairs
}

// network is what the node's kernel has for pods.
func network(t *testing.T, n *cni.Node) string {
	found := state(t, n.Link)
	slices.Sort(found)
	return fmt.Sprint(found)
}

// TestPodLinksAreMended: whatever of a pod's link at its node's end somebody
// spoils, is back at once.
func TestPodLinksAreMended(t *testing.T) {
	n, l, repairs := keeping(t, time.Hour)
	p, other := pod(t), pod(t)
	r := add(t, n, l, p)
	add(t, n, l, other)
	host := link(t, n.Link, r.Interfaces[0].Name)
	route := func(ip net.IP) *netlink.Route {
		found, err := n.Link.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Dst: &net.IPNet{IP: ip, Mask: net.CIDRMask(8*len(ip), 8*len(ip))}}, netlink.RT_FILTER_DST)
		no(t, err)
		return &found[0]
	}
	addr4, addr6 := r.IPs[0].Address.IP.To4(), r.IPs[1].Address.IP
	want := network(t, n)
	for name, spoil := range map[string]func(){
		"down": func() { no(t, n.Link.LinkSetDown(host)) },
		"down and up": func() {
			no(t, n.Link.LinkSetDown(host))
			no(t, n.Link.LinkSetUp(host))
		},
		"no route, IPv4": func() { no(t, n.Link.RouteDel(route(addr4))) },
		"no route, IPv6": func() { no(t, n.Link.RouteDel(route(addr6))) },
		"no neighbour":   func() { no(t, n.Link.NeighDel(&netlink.Neigh{LinkIndex: host.Attrs().Index, IP: addr4})) },
		"a wrong neighbour": func() {
			no(t, n.Link.NeighSet(&netlink.Neigh{LinkIndex: host.Attrs().Index, IP: addr6, State: netlink.NUD_PERMANENT, HardwareAddr: net.HardwareAddr{2, 1, 2, 3, 4, 5}}))
		},
		"another's route": func() { lo := *route(addr4); lo.LinkIndex, lo.Protocol = 1, 4; no(t, n.Link.RouteReplace(&lo)) },
	} {
		t.Run(name, func(t *testing.T) {
			spoil()
			await.Success(t, 2*time.Second, func() error {
				if got := network(t, n); got != want {
					return fmt.Errorf("the node has\n%s, not\n%s", got, want)
				}
				if host, err := n.Link.LinkByName(host.Attrs().Name); err != nil || host.Attrs().Flags&net.FlagUp == 0 {
					return fmt.Errorf("the link is down, %v", err)
				}
				return nil
			})
			no(t, n.Check(l, p))
			reachNode(t, n, p, r)
			if len(repairs) == 0 {
				t.Error("no repair was counted")
			}
			for len(repairs) > 0 {
				<-repairs
			}
		})
	}
}

// TestPodLinksOfNobody: pods that come and go are no repairs, and a link of which
// the runtime does not know stays as it is.
func TestPodLinksOfNobody(t *testing.T) {
	n, l, repairs := keeping(t, 20*time.Millisecond)
	for range 5 {
		p := pod(t)
		r := add(t, n, l, p)
		no(t, n.Check(l, p))
		reachNode(t, n, p, r)
		no(t, n.Del(l, p))
	}
	if len(repairs) > 0 {
		t.Errorf("%d repairs", <-repairs)
	}
	p := pod(t)
	r := add(t, n, l, p)
	host := link(t, n.Link, r.Interfaces[0].Name)

	// A link that the runtime does not know, of an ADD that waits, stays down.
	no(t, n.Forget("pods", p))
	no(t, n.Link.LinkSetDown(host))
	time.Sleep(100 * time.Millisecond)
	if link(t, n.Link, r.Interfaces[0].Name).Attrs().Flags&net.FlagUp != 0 {
		t.Error("a link was set up whose ADD is not over")
	}
}
