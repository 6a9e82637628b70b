package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/bench/pair"
	"poplin.dev/poplin/test/bench/plane"
	"poplin.dev/poplin/test/bench/process"
	"poplin.dev/poplin/test/bench/traffic/ends"
	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/cluster/tools"
	"poplin.dev/poplin/test/cni"
)

// Nodes of the cluster, by their numbers: clients are on the near one.
const (
	near = 1
	far  = 2
)

// wire is the device that connects two namespaces.
const wire = "wire"

// Addresses of what is not the cluster's: two namespaces with nothing but a
// wire, a VXLAN device of theirs on it, and a client outside of the cluster.
var (
	bareWire = [families][2]netip.Prefix{
		{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("192.0.2.2/24")},
		{netip.MustParsePrefix("2001:db8:1::1/64"), netip.MustParsePrefix("2001:db8:1::2/64")},
	}
	bareVXLAN = [families][2]netip.Prefix{
		{netip.MustParsePrefix("198.51.100.1/24"), netip.MustParsePrefix("198.51.100.2/24")},
		{netip.MustParsePrefix("2001:db8:2::1/64"), netip.MustParsePrefix("2001:db8:2::2/64")},
	}
	outside = [2]netip.Prefix{netip.MustParsePrefix("203.0.113.1/24"), netip.MustParsePrefix("203.0.113.2/24")}
)

// The families of addresses. Nodes know each other by IPv4.
const (
	ipv4 = iota
	ipv6
	families
)

var familyNames = [families]string{"IPv4", "IPv6"}

// lab is two nodes with a wire between them, programmed by daemons that have
// ended since, and two namespaces without anything of ours.
type lab struct {
	plane.Plane
	nodes   [3]*cni.Node // by number
	daemons []*process.Process
	servers []*ends.Server
}

func (l *lab) close() {
	for _, s := range l.servers {
		s.Close()
	}
	l.Close()
}

// connect joins two namespaces by a veth pair, each of the prefixes being an
// address for each end.
func connect(a, b *cni.Node, nameA, nameB string, prefixes ...[2]netip.Prefix) error {
	ns, err := os.Open(b.Path())
	if err != nil {
		return err
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = nameA
	if err := a.Link.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: nameB, PeerNamespace: netlink.NsFd(int(ns.Fd()))}); err != nil {
		return fmt.Errorf("add veth pair: %w", err)
	}
	for _, p := range prefixes {
		if err := errors.Join(address(a, nameA, p[0]), address(b, nameB, p[1])); err != nil {
			return err
		}
	}
	return nil
}

// address brings a link up with an address.
func address(n *cni.Node, name string, p netip.Prefix) error {
	link, err := n.Link.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	return errors.Join(n.Link.LinkSetUp(link), n.Link.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD}))
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// node makes a namespace that ends with the lab.
func (l *lab) node(name string) (*cni.Node, error) {
	n, err := cni.NewNode(filepath.Join(l.Dir, name), l.Dir)
	if err == nil {
		l.OnClose(n.Close)
	}
	return n, err
}

// up makes the cluster, as far as packets need one.
func (l *lab) up(ctx context.Context, t tools.Tools) (err error) {
	if err := l.Up(ctx, t); err != nil {
		return err
	}
	for _, n := range []byte{near, far} {
		if l.nodes[n], err = l.node(fmt.Sprint("node-", n)); err != nil {
			return err
		}
		if err := errors.Join(l.Join(l.nodes[n], n), l.Node(ctx, fmt.Sprint("node-", n), n, plane.PodRange6(n))); err != nil {
			return err
		}
	}
	if err := l.underlay(); err != nil {
		return err
	}
	for _, n := range []byte{near, far} {
		if err := l.daemon(n); err != nil {
			return err
		}
	}
	return nil
}

// underlay connects the nodes by a wire that leads nowhere else. Their way to
// the API server is another one.
func (l *lab) underlay() error {
	one := func(n byte) netip.Prefix { return netip.PrefixFrom(plane.NodeAddress(n), 32) }
	if err := connect(l.nodes[near], l.nodes[far], wire, wire, [2]netip.Prefix{one(near), one(far)}); err != nil {
		return err
	}
	for n, other := range map[byte]byte{near: far, far: near} {
		link, err := l.nodes[n].Link.LinkByName(wire)
		if err != nil {
			return err
		}
		if err := l.nodes[n].Link.RouteAdd(&netlink.Route{
			LinkIndex: link.Attrs().Index, Dst: ipNet(one(other)), Src: plane.NodeAddress(n).AsSlice(), Scope: netlink.SCOPE_LINK,
		}); err != nil {
			return fmt.Errorf("add route to node %d: %w", other, err)
		}
	}
	return nil
}

// daemon starts Poplin on a node, everything on that is on by default.
func (l *lab) daemon(n byte) error {
	dir := l.nodes[n].Dir
	if err := os.MkdirAll(filepath.Join(dir, "state"), 0o700); err != nil {
		return err
	}
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, []byte("apiVersion: config.poplin.dev/v1alpha1\nkind: Configuration\noverlay: {interface: "+wire+"}\ncni: {confDir: "+
		filepath.Join(dir, "state")+"}\n"), 0o600); err != nil {
		return err
	}
	run, err := process.Start(l.nodes[n], filepath.Join(dir, "poplind.log"), []string{fmt.Sprint("NODE_NAME=node-", n)},
		filepath.Join(l.Dir, "poplind"), "-config", config, "-kubeconfig", l.PKI(pki.AdminKubeconfig),
		"-state-dir", filepath.Join(dir, "state"), "-socket", filepath.Join(dir, "poplind.sock"))
	if err == nil {
		l.daemons = append(l.daemons, run)
		l.OnClose(run.Kill)
	}
	return err
}

// pod makes one on a node.
func (l *lab) pod(n byte, name string) (*cni.Pod, []netip.Addr, error) {
	return pair.Pod(&l.Plane, l.nodes[n], n, name, plane.PodRange6(n))
}

// server makes a pod with a server at each of its addresses.
func (l *lab) server(n byte) (at [families]*ends.Server, err error) {
	p, addrs, err := l.pod(n, "server")
	for f := range at {
		if err == nil {
			at[f], err = l.serve(p, addrs[f])
		}
	}
	return at, err
}

func (l *lab) serve(at ends.Place, a netip.Addr) (*ends.Server, error) {
	s, err := ends.Serve(at, a)
	if err == nil {
		l.servers = append(l.servers, s)
	}
	return s, err
}

// bare makes two namespaces with a wire and a VXLAN device on it, and a server
// at each address of the second.
func (l *lab) bare() (client ends.Place, onWire, onVXLAN [families]*ends.Server, err error) {
	var both [2]*cni.Node
	for i := range both {
		if both[i], err = l.node(fmt.Sprint("bare-", i)); err != nil {
			return nil, onWire, onVXLAN, err
		}
	}
	if err := connect(both[0], both[1], wire, wire, bareWire[:]...); err != nil {
		return nil, onWire, onVXLAN, err
	}
	for i, n := range both {
		if err := overWire(n, i); err != nil {
			return nil, onWire, onVXLAN, err
		}
	}
	for f := range families {
		if onWire[f], err = l.serve(both[1], bareWire[f][1].Addr()); err != nil {
			return nil, onWire, onVXLAN, err
		}
		if onVXLAN[f], err = l.serve(both[1], bareVXLAN[f][1].Addr()); err != nil {
			return nil, onWire, onVXLAN, err
		}
	}
	return both[0], onWire, onVXLAN, nil
}

// overWire makes the i-th end of a VXLAN device that knows one neighbour alone.
func overWire(n *cni.Node, i int) error {
	parent, err := n.Link.LinkByName(wire)
	if err != nil {
		return err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "vxlan", parent.Attrs().MTU-50
	if err := n.Link.LinkAdd(&netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: 1, Port: 8472, VtepDevIndex: parent.Attrs().Index,
		SrcAddr: bareWire[ipv4][i].Addr().AsSlice(), Group: bareWire[ipv4][1-i].Addr().AsSlice(),
	}); err != nil {
		return fmt.Errorf("add VXLAN device: %w", err)
	}
	for _, p := range bareVXLAN {
		if err := address(n, attrs.Name, p[i]); err != nil {
			return err
		}
	}
	return nil
}

// upstream makes two pods by one of upstream's plugins, on a node of their own,
// and a server in the second.
func (l *lab) upstream(dir, plugin, more string) (client *cni.Pod, s *ends.Server, err error) {
	n, err := cni.NewNode(filepath.Join(l.Dir, plugin), dir)
	if err != nil {
		return nil, nil, err
	}
	l.OnClose(n.Close)
	list, err := cni.List(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":%q,"mtu":1450,%s"ipam":{"type":"host-local",`+
		`"dataDir":%q,"ranges":[[{"subnet":"10.246.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}}]}`, plugin, more, filepath.Join(n.Dir, "ipam")))
	if err != nil {
		return nil, nil, err
	}
	for _, name := range []string{"client", "server"} {
		pod, err := cni.NewPod(plugin + "-" + name)
		if err != nil {
			return nil, nil, err
		}
		l.OnClose(pod.Close)
		result, err := n.Add(list, pod)
		if err != nil {
			return nil, nil, fmt.Errorf("%w; apt-get install containernetworking-plugins, or give -upstream", err)
		}
		if client == nil {
			client = pod
			continue
		}
		a, _ := netip.AddrFromSlice(result.IPs[0].Address.IP)
		if s, err = l.serve(pod, a.Unmap()); err != nil {
			return nil, nil, err
		}
	}
	return client, s, nil
}

// visitor makes a namespace beside the near node, which is its router.
func (l *lab) visitor() (*cni.Node, error) {
	n, err := l.node("outside")
	if err != nil {
		return nil, err
	}
	if err := connect(n, l.nodes[near], "eth0", "outside", outside); err != nil {
		return nil, err
	}
	link, err := n.Link.LinkByName("eth0")
	if err != nil {
		return nil, err
	}
	return n, n.Link.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: outside[1].Addr().AsSlice()})
}

type object = map[string]any

// service makes one, a name for each family, that leads to a pod, at the ports of its server, on nodes
// too if wanted.
func (l *lab) service(ctx context.Context, name string, a netip.Addr, to *ends.Server, on byte, nodePort bool) error {
	var ports, targets []object
	for _, p := range []struct {
		name, protocol string
		port           int
	}{{"request", "TCP", ends.RequestPort}, {"stream", "TCP", ends.StreamPort}, {"packet", "UDP", ends.PacketPort}} {
		port := object{"name": p.name, "protocol": p.protocol, "port": p.port}
		targets = append(targets, object{"name": p.name, "protocol": p.protocol, "port": p.port})
		if nodePort {
			port["nodePort"] = p.port
		}
		ports = append(ports, port)
	}
	kind := familyNames[ipv4]
	if a.Is6() {
		kind = familyNames[ipv6]
	}
	name += "-" + strings.ToLower(kind)
	spec := object{"clusterIP": a.String(), "ipFamilies": []string{kind}, "ports": ports}
	if nodePort {
		spec["type"] = "NodePort"
	}
	for path, o := range map[string]object{
		"/api/v1/namespaces/default/services": {"apiVersion": "v1", "kind": "Service", "metadata": object{"name": name}, "spec": spec},
		"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices": {
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": kind,
			"metadata": object{"name": name, "labels": object{"kubernetes.io/service-name": name}}, "ports": targets,
			"endpoints": []object{{"addresses": []string{to.Addr.String()}, "nodeName": fmt.Sprint("node-", on), "conditions": object{"ready": true}}},
		},
	} {
		if err := l.API.Send(ctx, http.MethodPost, path, o, nil); err != nil {
			return err
		}
	}
	return nil
}

// settle waits until every way is open, ends the daemons and the control
// plane, whose work stays in the kernel, and tries once more.
func (l *lab) settle(ctx context.Context, ways []*way) error {
	open := func() error {
		for _, w := range ways {
			if err := w.open(); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
		return nil
	}
	if err := api.Poll(ctx, time.Minute, "the ways", func(context.Context) error {
		for _, d := range l.daemons {
			if err := d.Alive(); err != nil {
				return err
			}
		}
		return open()
	}); err != nil {
		return err
	}
	for _, d := range l.daemons {
		d.Stop()
	}
	l.Silence()
	return open()
}
