// Package cluster runs a real Kubernetes on one machine: etcd, the control
// plane, and on each node a containerd and a kubelet, every node being a set of
// namespaces with its own address on a LAN. In: Options, and root. Out: a
// cluster that outlives its maker, found again by its name, and taken down
// without a trace, even if its maker died half way. It refuses a name that is
// taken and machines that lack what nodes need.
package cluster

import (
	"fmt"
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"poplin.dev/poplin/test/cluster/underlay"
)

// Options say what Up makes. The zero value of each is its default.
type Options struct {
	Name    string // default "poplin"
	Nodes   int    // default 3
	Family  string // "ipv4", "ipv6" or, by default, "dual"
	Network string // "poplin" (default) or "none"
	Proxy   string // "kube-proxy" (default) or "none"
	Version string // of Kubernetes; default: the project's
	Routed  int    // number of the worker behind a router; 0: none
	// Image and Manifest are Poplin's, for Network "poplin"; by default those of
	// the project: dist/poplin-image.tar and install/manifests/poplin.yaml.
	Image    string
	Manifest string
	// Keep leaves what there is when Up fails.
	Keep bool
	// Output receives a line for each step.
	Output io.Writer `json:"-"`
}

// DefaultName is the name of a cluster that was given none.
const DefaultName = "poplin"

const maxNodes = 100

var nameForm = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$`)

func checkName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("check name %q: want at most 32 small letters, digits and hyphens, beginning with a letter", name)
	}
	return nil
}

// complete fills in defaults and refuses what cannot be.
func (o Options) complete() (Options, error) {
	for _, d := range []struct {
		value   *string
		key     string
		allowed []string // the first is the default
	}{
		{&o.Family, "family", []string{"dual", "ipv4", "ipv6"}},
		{&o.Network, "network", []string{"poplin", "none"}},
		{&o.Proxy, "proxy", []string{"kube-proxy", "none"}},
	} {
		if *d.value == "" {
			*d.value = d.allowed[0]
		}
		if d.key == "proxy" && *d.value == "poplin" {
			return o, fmt.Errorf("check proxy poplin: it comes with Poplin's Services module; use kube-proxy until then")
		}
		if !slices.Contains(d.allowed, *d.value) {
			return o, fmt.Errorf("check %s %q: want one of %s", d.key, *d.value, strings.Join(d.allowed, ", "))
		}
	}
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Nodes < 1 || o.Nodes > maxNodes {
		return o, fmt.Errorf("check nodes %d: want 1 to %d", o.Nodes, maxNodes)
	}
	if o.Routed < 0 || o.Routed > o.Nodes {
		return o, fmt.Errorf("check routed %d: want the number of a worker, 1 to %d", o.Routed, o.Nodes)
	}
	if o.Output == nil {
		o.Output = io.Discard
	}
	return o, checkName(o.Name)
}

// plan is every address of a cluster. All of it follows from the options.
type plan struct {
	families int // 1 or 2
	ipv6     bool
	lan      underlay.LAN
	router   underlay.Router
	hosts    []underlay.Host // of worker-1, worker-2, ...
	pods     []netip.Prefix
	services []netip.Prefix
}

// subnets of a family, and the form of an address in them.
type subnets struct {
	lan, routed    string // address of host %d
	bits           int
	pods, services string
}

var families = map[string]subnets{
	"ipv4": {"172.30.0.%d", "172.30.1.%d", 24, "10.244.0.0/16", "10.96.0.0/16"},
	"ipv6": {"fd00:30::%d", "fd00:30:0:1::%d", 64, "fd00:10:244::/56", "fd00:10:96::/112"},
}

const (
	gatewayHost = 1
	workerHost  = 10 // worker-1 is host 11
	routerHost  = 254
)

func (s subnets) address(form string, host int) netip.Prefix {
	return netip.PrefixFrom(netip.MustParseAddr(fmt.Sprintf(form, host)), s.bits)
}

func makePlan(o Options) plan {
	names := []string{o.Family}
	if o.Family == "dual" {
		names = []string{"ipv4", "ipv6"}
	}
	p := plan{
		families: len(names), ipv6: o.Family == "ipv6",
		lan:    underlay.LAN{Namespace: namespace(o.Name, "underlay")},
		router: underlay.Router{Host: underlay.Host{Namespace: namespace(o.Name, "router"), Port: "router"}},
		hosts:  make([]underlay.Host, o.Nodes),
	}
	for i := range p.hosts {
		node := nodeName(i + 1)
		p.hosts[i] = underlay.Host{Namespace: namespace(o.Name, node), Port: node}
	}
	for _, name := range names {
		p.addFamily(families[name], o.Routed)
	}
	p.lan.Forbidden = p.pods
	return p
}

func (p *plan) addFamily(s subnets, routed int) {
	p.pods = append(p.pods, netip.MustParsePrefix(s.pods))
	p.services = append(p.services, netip.MustParsePrefix(s.services))
	gateway := s.address(s.lan, gatewayHost)
	router := s.address(s.lan, routerHost)
	leg := s.address(s.routed, gatewayHost)
	p.lan.Gateways = append(p.lan.Gateways, gateway)
	p.router.Addresses = append(p.router.Addresses, router)
	p.router.Gateways = append(p.router.Gateways, gateway.Addr())
	p.router.Leg = append(p.router.Leg, leg)
	for i := range p.hosts {
		host := &p.hosts[i]
		if i+1 == routed {
			host.Addresses = append(host.Addresses, s.address(s.routed, workerHost+i+1))
			host.Gateways = append(host.Gateways, leg.Addr())
			continue
		}
		host.Addresses = append(host.Addresses, s.address(s.lan, workerHost+i+1))
		host.Gateways = append(host.Gateways, gateway.Addr())
		if routed > 0 {
			host.Routes = append(host.Routes, underlay.Route{To: leg.Masked(), Via: router.Addr()})
		}
	}
}

// server is the URL of the API server, which runs on worker-1.
func (p plan) server() string {
	return "https://" + netip.AddrPortFrom(p.hosts[0].Addresses[0].Addr(), apiPort).String()
}

// dns are the addresses of the cluster's DNS, the tenth of each Service range.
func (p plan) dns() []netip.Addr { return nth(p.services, 10) }

// nth is the n-th address of each prefix.
func nth(prefixes []netip.Prefix, n int) (addrs []netip.Addr) {
	for _, prefix := range prefixes {
		a := prefix.Addr()
		for range n {
			a = a.Next()
		}
		addrs = append(addrs, a)
	}
	return addrs
}

func (p plan) nodeAddresses(i int) (addrs []netip.Addr) {
	for _, prefix := range p.hosts[i].Addresses {
		addrs = append(addrs, prefix.Addr())
	}
	return addrs
}

func joined[T fmt.Stringer](list []T) string {
	var s []string
	for _, v := range list {
		s = append(s, v.String())
	}
	return strings.Join(s, ",")
}

func nodeName(number int) string { return fmt.Sprintf("worker-%d", number) }

func namespace(cluster, role string) string { return cluster + "-" + role }

// ours says whether a named network namespace is of this cluster, whatever
// other clusters' names begin with.
func ours(cluster, namespace string) bool {
	role, ok := strings.CutPrefix(namespace, cluster+"-")
	return ok && roleForm.MatchString(role)
}

var roleForm = regexp.MustCompile(`^(underlay|router|worker-[0-9]+)$`)
