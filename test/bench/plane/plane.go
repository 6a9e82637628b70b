// Package plane is a control plane for a bench: a real etcd and API server in
// a network namespace, to which nodes of the bench are connected. Inputs are the
// programs; outputs are a client, and namespaces that reach the server. It
// runs no controllers, so that nothing but the bench changes anything, and
// refuses to leave anything behind: all of it ends with the process.
package plane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"poplin.dev/poplin/test/bench/process"
	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/cluster/build"
	"poplin.dev/poplin/test/cluster/control"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/cluster/tools"
	"poplin.dev/poplin/test/cni"
)

// Plane is the control plane.
type Plane struct {
	// Dir has the files of the bench, with the programs poplin and poplind.
	Dir string
	API *api.Client

	root    string // of the project
	control *cni.Node
	servers []*process.Process
	ends    []func()
}

const (
	apiPort  = 6443
	services = "10.96.0.0/12,fd00:96::/112"
	// Pods is the range of all pods.
	Pods = "10.128.0.0/9"
)

// PKI is the path of a file of the cluster's certificates.
func (l *Plane) PKI(file string) string { return filepath.Join(l.Dir, "pki", file) }

// OnClose has f called by Close, the last one first.
func (l *Plane) OnClose(f func()) { l.ends = append(l.ends, f) }

// Close ends all of it.
func (l *Plane) Close() {
	for i := len(l.ends) - 1; i >= 0; i-- {
		l.ends[i]()
	}
}

// Silence ends the API server and etcd, where nothing is wanted of them any
// more and they would take time of what is measured.
func (l *Plane) Silence() {
	for _, run := range slices.Backward(l.servers) {
		run.Kill()
	}
}

// Server is the API server.
func (l *Plane) Server() *process.Process { return l.servers[len(l.servers)-1] }

// Up starts the control plane. Close ends also what was started by one that
// failed.
func (l *Plane) Up(ctx context.Context, t tools.Tools) (err error) {
	l.root = t.Root
	if l.Dir, err = os.MkdirTemp("", "poplin-bench-"); err != nil {
		return err
	}
	l.OnClose(func() { _ = os.RemoveAll(l.Dir) })
	if err := cni.Build(l.Dir, "cmd/poplin", "cmd/poplind"); err != nil {
		return err
	}
	if l.control, err = cni.NewNode(filepath.Join(l.Dir, "control"), l.Dir); err != nil {
		return err
	}
	l.OnClose(l.control.Close)
	const server = "10.0.0.1"
	if err := address(l.control.Link, "lo", netip.MustParsePrefix(server+"/32")); err != nil {
		return err
	}
	url := fmt.Sprintf("https://%s:%d", server, apiPort)
	if err := pki.Write(l.PKI(""), pki.Spec{
		Server: url, Addresses: []netip.Addr{netip.MustParseAddr(server), netip.MustParseAddr("10.96.0.1")},
		Names: []string{"kubernetes.default.svc"},
	}); err != nil {
		return err
	}
	spec := control.Spec{
		Data: filepath.Join(l.Dir, "etcd-data"), Address: server, Listen: "0.0.0.0", Port: apiPort,
		Pods: Pods, Services: services, PKI: l.PKI,
	}
	for _, p := range []struct {
		name string
		args []string
	}{{build.Etcd, spec.Etcd()}, {build.APIServer, spec.APIServer()}} {
		run, err := process.Start(l.control, filepath.Join(l.Dir, p.name+".log"), nil, append([]string{t.Kubernetes.Program(p.name)}, p.args...)...)
		if err != nil {
			return err
		}
		l.OnClose(run.Kill)
		l.servers = append(l.servers, run)
	}
	if l.API, err = api.New(url, api.Files{
		CA: l.PKI(pki.CACert), Certificate: l.PKI(pki.Certificate("admin")), Key: l.PKI(pki.Key("admin")),
	}, Dialer(l.control)); err != nil {
		return err
	}
	l.OnClose(l.API.Close)
	if err := api.Poll(ctx, 2*time.Minute, "the API server", func(ctx context.Context) error {
		return l.API.Get(ctx, "/readyz", nil)
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

// Join connects a node's namespace with the control plane's, as the n-th.
func (l *Plane) Join(node *cni.Node, n byte) error {
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
	here, there := netip.AddrFrom4([4]byte{10, 0, n, 1}), NodeAddress(n)
	if err := errors.Join(address(l.control.Link, attrs.Name, netip.PrefixFrom(here, 24)), address(node.Link, "eth0", netip.PrefixFrom(there, 24))); err != nil {
		return fmt.Errorf("connect node: %w", err)
	}
	eth0, err := node.Link.LinkByName("eth0")
	if err != nil {
		return err
	}
	return node.Link.RouteAdd(&netlink.Route{LinkIndex: eth0.Attrs().Index, Gw: here.AsSlice()})
}

// NodeAddress is the n-th node's.
func NodeAddress(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, n, 2}) }

// Dialer makes connections from inside a namespace.
func Dialer(n *cni.Node) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (conn net.Conn, err error) {
		in := n.Do(func() {
			// Racing families would make the socket on another thread.
			d := net.Dialer{FallbackDelay: -1}
			conn, err = d.DialContext(ctx, network, address)
		})
		return conn, errors.Join(in, err)
	}
}

// List reads collections, all at once and in the form in which daemons read
// them, and returns how long that takes.
func (l *Plane) List(ctx context.Context, paths ...string) (time.Duration, error) {
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for _, path := range paths {
		g.Go(func() error {
			body, err := l.API.Open(ctx, path, "application/vnd.kubernetes.protobuf")
			if err != nil {
				return err
			}
			defer body.Close()
			_, err = io.Copy(io.Discard, body)
			return err
		})
	}
	err := g.Wait()
	return time.Since(began), err
}

type object = map[string]any

// define gives the API server the kinds and objects that the daemon asks for.
func (l *Plane) define(ctx context.Context) error {
	text, err := os.ReadFile(filepath.Join(l.root, "install/manifests/poplin.yaml"))
	if err != nil {
		return err
	}
	for document := range strings.SplitSeq(string(text), "\n---\n") {
		var o object
		if err := yaml.Unmarshal([]byte(document), &o); err != nil {
			return err
		}
		if o["kind"] != "CustomResourceDefinition" {
			continue
		}
		if err := l.API.Send(ctx, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", o, nil); err != nil {
			return err
		}
	}
	return nil
}

// Node makes the n-th node's Node object, with more pod ranges if wanted.
func (l *Plane) Node(ctx context.Context, name string, n byte, more ...netip.Prefix) error {
	ranges := append([]netip.Prefix{PodRange(n)}, more...)
	o := object{
		"apiVersion": "v1", "kind": "Node", "metadata": object{"name": name},
		"spec": object{"podCIDRs": ranges, "podCIDR": ranges[0]},
	}
	if err := l.API.Send(ctx, http.MethodPost, "/api/v1/nodes", o, nil); err != nil {
		return err
	}
	o["status"] = object{"addresses": []object{{"type": "InternalIP", "address": NodeAddress(n).String()}}}
	return l.API.Send(ctx, http.MethodPut, "/api/v1/nodes/"+name+"/status", o, nil)
}

// PodRange is that of the n-th node's pods.
func PodRange(n byte) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 255, n, 0}), 24)
}

// PodRange6 is that of their IPv6 addresses, where they have any.
func PodRange6(n byte) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 2: 0x02, 3: 0x55, 5: n}), 64)
}
