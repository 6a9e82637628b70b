package services

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/bench/process"
	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/cluster/build"
	"poplin.dev/poplin/test/cluster/control"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/cluster/tools"
	"poplin.dev/poplin/test/cni"
)

// lab is a control plane in a network namespace, to which the proxies' are
// connected. All of it ends with this process.
type lab struct {
	dir     string
	root    string // of the project
	control *cni.Node
	api     *api.Client
	ends    []func()
	// crowd is how many objects are in the API server now: the Services
	// numbered from 0. replaced counts endpoints that got another address.
	crowd    size
	replaced int
}

const (
	apiPort  = 6443
	services = "10.96.0.0/12"
	pods     = "10.128.0.0/9"
)

func (l *lab) pki(file string) string { return filepath.Join(l.dir, "pki", file) }

// onClose has f called by close, the last one first.
func (l *lab) onClose(f func()) { l.ends = append(l.ends, f) }

func (l *lab) close() {
	for i := len(l.ends) - 1; i >= 0; i-- {
		l.ends[i]()
	}
}

// up starts the control plane.
func (l *lab) up(ctx context.Context, t tools.Tools) (err error) {
	if l.dir, err = os.MkdirTemp("", "poplin-bench-"); err != nil {
		return err
	}
	l.onClose(func() { _ = os.RemoveAll(l.dir) })
	if err := cni.Build(l.dir, "cmd/poplin", "cmd/poplind"); err != nil {
		return err
	}
	if l.control, err = cni.NewNode(filepath.Join(l.dir, "control"), l.dir); err != nil {
		return err
	}
	l.onClose(l.control.Close)
	const server = "10.0.0.1"
	if err := address(l.control.Link, "lo", netip.MustParsePrefix(server+"/32")); err != nil {
		return err
	}
	url := fmt.Sprintf("https://%s:%d", server, apiPort)
	if err := pki.Write(l.pki(""), pki.Spec{
		Server: url, Addresses: []netip.Addr{netip.MustParseAddr(server), netip.MustParseAddr("10.96.0.1")},
		Names: []string{"kubernetes.default.svc"},
	}); err != nil {
		return err
	}
	spec := control.Spec{
		Data: filepath.Join(l.dir, "etcd-data"), Address: server, Listen: "0.0.0.0", Port: apiPort,
		Pods: pods, Services: services, PKI: l.pki,
	}
	for _, p := range []struct {
		name string
		args []string
	}{{build.Etcd, spec.Etcd()}, {build.APIServer, spec.APIServer()}} {
		run, err := process.Start(l.control, filepath.Join(l.dir, p.name+".log"), nil, append([]string{t.Kubernetes.Program(p.name)}, p.args...)...)
		if err != nil {
			return err
		}
		l.onClose(run.Kill)
	}
	if l.api, err = api.New(url, api.Files{
		CA: l.pki(pki.CACert), Certificate: l.pki(pki.Certificate("admin")), Key: l.pki(pki.Key("admin")),
	}, dialer(l.control)); err != nil {
		return err
	}
	l.onClose(l.api.Close)
	if err := api.Poll(ctx, 2*time.Minute, "the API server", func(ctx context.Context) error {
		return l.api.Get(ctx, "/readyz", nil)
	}); err != nil {
		return err
	}
	return l.define(ctx)
}

// address brings a link up with an address.
func address(nl *netlink.Handle, name string, p netip.Prefix) error {
	link, err := nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	return errors.Join(nl.LinkSetUp(link), nl.AddrAdd(link, &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD}))
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// join connects a proxy's namespace with the control plane's, as the n-th.
func (l *lab) join(node *cni.Node, n byte) error {
	ns, err := os.Open(node.Path())
	if err != nil {
		return err
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = fmt.Sprint("node", n)
	if err := l.control.Link.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(ns.Fd()))}); err != nil {
		return fmt.Errorf("connect node: %w", err)
	}
	here, there := netip.AddrFrom4([4]byte{10, 0, n, 1}), nodeAddress(n)
	if err := errors.Join(address(l.control.Link, attrs.Name, netip.PrefixFrom(here, 24)), address(node.Link, "eth0", netip.PrefixFrom(there, 24))); err != nil {
		return fmt.Errorf("connect node: %w", err)
	}
	eth0, err := node.Link.LinkByName("eth0")
	if err != nil {
		return err
	}
	return node.Link.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: here.AsSlice()})
}

func nodeAddress(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, n, 2}) }

// dialer makes connections from inside a namespace.
func dialer(n *cni.Node) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		in := n.Do(func() {
			// Racing families would make the socket on another thread.
			d := net.Dialer{FallbackDelay: -1}
			conn, err = d.DialContext(ctx, network, address)
		})
		return conn, errors.Join(in, err)
	}
}
