package netns

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	applyvip "poplin.dev/poplin/pkg/apply/vip"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/vip"
	"poplin.dev/poplin/pkg/services"
	"poplin.dev/poplin/plugins/hostport/apply"
	hostport "poplin.dev/poplin/plugins/hostport/plan"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/forge"
	"poplin.dev/poplin/test/space"
)

// Where the ways through a node's own programs begin that end at its overlay port.
const (
	washIP       = "10.96.0.10" // a Service's cluster address
	washNodePort = 30472
	washHostPort = 31472
)

// TestForgedThroughOurOwnPorts: a Service or host port whose endpoint is a
// node's overlay port makes nobody a peer. Poplin's Services refuse such an
// endpoint; where they would not, the guards drop what comes by it, whoever
// sends, as they drop what comes by a host port.
func TestForgedThroughOurOwnPorts(t *testing.T) {
	t.Parallel()
	const packets = 1000
	for _, refuse := range []bool{true, false} {
		l := newLab(t, ipv4, 2)
		l.startAll(t)
		here, there := l.nodes[0], l.nodes[1]
		for _, n := range l.nodes {
			n.wash(t, refuse)
		}
		stranger, _ := outside(t, l)
		if err := stranger.NL.RouteAdd(&netlink.Route{
			Dst: space.IPNet(netip.MustParsePrefix(washIP + "/32")), Gw: here.self.Addresses[0].AsSlice()}); err != nil {
			t.Fatal(err)
		}
		victim, local, remote := here.addPod(t), here.addPod(t), there.addPod(t)
		reach(t, victim, remote)
		heard := forge.Hear(t, victim.Do, 9)
		packet := func(text string) string {
			return forge.VXLAN(cluster.MACOf("uid-2"), cluster.MACOf("uid-1"),
				netip.AddrPortFrom(remote.addrs[0], 9), netip.AddrPortFrom(victim.addrs[0], 9), text)
		}
		// The same bytes from a peer arrive.
		control := func(text string) {
			t.Helper()
			sendMany(t, there.Space, there.self.Addresses[0], netip.AddrPortFrom(here.self.Addresses[0], 8472), packet(text), 1)
			await.Success(t, 5*time.Second, func() error {
				if heard()[text] == 0 {
					return errors.New("the control did not arrive: " + text)
				}
				return nil
			})
		}
		for _, from := range []struct {
			who  string
			s    *space.Space
			addr netip.Addr
		}{
			{"a pod of this node", local.Space, local.addrs[0]},
			{"a pod of another node", remote.Space, remote.addrs[0]},
			{"a host that is no node", stranger, underlayAddr("4", 99).Addr()},
		} {
			for _, to := range []struct {
				what string
				at   netip.AddrPort
			}{
				{"cluster address", netip.AddrPortFrom(netip.MustParseAddr(washIP), 8472)},
				{"node port", netip.AddrPortFrom(here.self.Addresses[0], washNodePort)},
				{"node port of the other node", netip.AddrPortFrom(there.self.Addresses[0], washNodePort)},
				{"host port", netip.AddrPortFrom(here.self.Addresses[0], washHostPort)},
			} {
				what := fmt.Sprintf("%s, by a %s, endpoints refused: %v", from.who, to.what, refuse)
				before := forged(t, here) + forged(t, there)
				if err := from.s.Do(func() error {
					for range packets {
						if err := forge.Send(from.addr, to.at, packet(what)); err != nil {
							return err
						}
					}
					return nil
				}); err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if !refuse || to.what == "host port" {
					// So they did come as far as the guards.
					await.Success(t, 5*time.Second, func() error {
						if got := forged(t, here) + forged(t, there) - before; got != packets {
							return fmt.Errorf("%s: %d of %d packets were counted as dropped", what, got, packets)
						}
						return nil
					})
				}
				control("control after " + what)
				if n := heard()[what]; n != 0 {
					t.Errorf("%s: %d of %d packets were delivered", what, n, packets)
				}
			}
		}
		reach(t, victim, remote)

		// Without encryption nobody can tell a host that fakes a node's
		// address in the nodes' own network: docs/design.md says so.
		if err := stranger.Do(func() error {
			return forge.Send(there.self.Addresses[0], netip.AddrPortFrom(here.self.Addresses[0], 8472), packet("a host with a peer's address"))
		}); err != nil {
			t.Fatal(err)
		}
		await.Success(t, 5*time.Second, func() error {
			if heard()["a host with a peer's address"] == 0 {
				return errors.New("not delivered: then docs/design.md says less than is true")
			}
			return nil
		})
	}
}

// wash leads ports of a node to the first node's overlay port, by the
// programs that serve Services and host ports.
func (n *node) wash(t *testing.T, refuse bool) {
	t.Helper()
	target := netip.AddrPortFrom(n.lab.nodes[0].self.Addresses[0], 8472)
	var (
		kernel *applyvip.Table
		ports  *apply.Kernel
	)
	if err := n.Do(func() (err error) {
		if kernel, err = applyvip.Open(applyvip.Config{Log: slog.New(slog.DiscardHandler)}); err != nil {
			return err
		}
		ports, err = apply.Open()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kernel.Close(); ports.Close() })
	self := services.Node{
		Name: n.self.Name, Addresses: n.self.Addresses, NodePortAddresses: n.self.Addresses,
		IsNodeAddress: inNodes, ServiceRanges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")},
	}
	if refuse {
		self.OverlayPort = 8472
	}
	table := services.NewTable(self, vip.New())
	key := service.Key{Namespace: "default", Name: "laundry"}
	table.Set(service.Service{
		Key: key, Type: service.NodePort, ClusterIPs: []netip.Addr{netip.MustParseAddr(washIP)},
		Ports: []service.Port{{Protocol: service.UDP, Port: 8472, NodePort: washNodePort}},
	}, []service.Slice{{
		Key: key, Service: key.Name, Family: 4, Ports: []service.SlicePort{{Protocol: service.UDP, Port: 8472}},
		Endpoints: []service.Endpoint{{Addr: target.Addr(), Node: "worker-1", Ready: true, Serving: true}},
	}})
	if refused := len(table.Findings(key)) > 0; refused != refuse {
		t.Fatalf("findings %v, want some: %v", table.Findings(key), refuse)
	}
	if err := errors.Join(kernel.Apply(table.Take()), ports.Set([]hostport.Element{
		{Protocol: hostport.UDP, Host: netip.IPv4Unspecified(), HostPort: washHostPort, Pod: target.Addr(), PodPort: target.Port()},
	})); err != nil {
		t.Fatal(err)
	}
}
