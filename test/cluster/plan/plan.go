// Package plan gives every node, pod range and Service range of a test cluster
// its addresses. In: the cluster's name, its number of nodes, its families, and
// which node is behind a router. Out: a description of the network that
// package underlay makes. It computes only, and refuses nothing: its caller has
// checked the input.
package plan

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"poplin.dev/poplin/test/cluster/underlay"
)

// APIPort is where the API server listens.
const APIPort = 6443

// Plan is every address of a cluster.
type Plan struct {
	Families int // 1 or 2
	IPv6     bool
	LAN      underlay.LAN
	Router   underlay.Router
	Hosts    []underlay.Host // of worker-1, worker-2, ...
	Pods     []netip.Prefix
	Services []netip.Prefix
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

// New makes the plan of a cluster.
func New(cluster string, nodes int, family string, routed int) Plan {
	names := []string{family}
	if family == "dual" {
		names = []string{"ipv4", "ipv6"}
	}
	p := Plan{
		Families: len(names), IPv6: family == "ipv6",
		LAN:    underlay.LAN{Namespace: Namespace(cluster, "underlay")},
		Router: underlay.Router{Host: underlay.Host{Namespace: Namespace(cluster, "router"), Port: "router"}},
		Hosts:  make([]underlay.Host, nodes),
	}
	for i := range p.Hosts {
		node := NodeName(i + 1)
		p.Hosts[i] = underlay.Host{Namespace: Namespace(cluster, node), Port: node}
	}
	for _, name := range names {
		p.addFamily(families[name], routed)
	}
	p.LAN.Forbidden = p.Pods
	return p
}

func (p *Plan) addFamily(s subnets, routed int) {
	p.Pods = append(p.Pods, netip.MustParsePrefix(s.pods))
	p.Services = append(p.Services, netip.MustParsePrefix(s.services))
	gateway := s.address(s.lan, gatewayHost)
	router := s.address(s.lan, routerHost)
	leg := s.address(s.routed, gatewayHost)
	p.LAN.Gateways = append(p.LAN.Gateways, gateway)
	p.Router.Addresses = append(p.Router.Addresses, router)
	p.Router.Gateways = append(p.Router.Gateways, gateway.Addr())
	p.Router.Leg = append(p.Router.Leg, leg)
	behind := underlay.Route{To: leg.Masked(), Via: router.Addr()}
	if routed > 0 {
		p.LAN.Routes = append(p.LAN.Routes, behind)
	}
	for i := range p.Hosts {
		host := &p.Hosts[i]
		if i+1 == routed {
			host.Addresses = append(host.Addresses, s.address(s.routed, workerHost+i+1))
			host.Gateways = append(host.Gateways, leg.Addr())
			continue
		}
		host.Addresses = append(host.Addresses, s.address(s.lan, workerHost+i+1))
		host.Gateways = append(host.Gateways, gateway.Addr())
		if routed > 0 {
			host.Routes = append(host.Routes, behind)
		}
	}
}

// Server is the URL of the API server, which runs on worker-1.
func (p Plan) Server() string {
	return "https://" + netip.AddrPortFrom(p.Hosts[0].Addresses[0].Addr(), APIPort).String()
}

// Anywhere is the unspecified address that a server listens on.
func (p Plan) Anywhere() string {
	if p.IPv6 {
		return "::"
	}
	return "0.0.0.0"
}

// DNS are the addresses of the cluster's DNS, the tenth of each Service range.
func (p Plan) DNS() []netip.Addr { return Nth(p.Services, 10) }

// Nth is the n-th address of each prefix.
func Nth(prefixes []netip.Prefix, n int) (addrs []netip.Addr) {
	for _, prefix := range prefixes {
		a := prefix.Addr()
		for range n {
			a = a.Next()
		}
		addrs = append(addrs, a)
	}
	return addrs
}

// NodeAddresses are those of the i-th node, counted from 0.
func (p Plan) NodeAddresses(i int) (addrs []netip.Addr) {
	for _, prefix := range p.Hosts[i].Addresses {
		addrs = append(addrs, prefix.Addr())
	}
	return addrs
}

// Joined is a list as programs' flags want it.
func Joined[T fmt.Stringer](list []T) string {
	var s []string
	for _, v := range list {
		s = append(s, v.String())
	}
	return strings.Join(s, ",")
}

// NodeName is the name of a node, counted from 1.
func NodeName(number int) string { return fmt.Sprintf("worker-%d", number) }

// Namespace is the name of a network namespace; its role is a node, "underlay"
// or "router".
func Namespace(cluster, role string) string { return cluster + "-" + role }

// Cgroup is the cgroup of all of a cluster's processes.
func Cgroup(cluster string) string { return "poplin-cluster-" + cluster }

// Ours says whether a named network namespace is of this cluster, whatever
// other clusters' names begin with.
func Ours(cluster, namespace string) bool {
	role, ok := strings.CutPrefix(namespace, cluster+"-")
	return ok && roleForm.MatchString(role)
}

var roleForm = regexp.MustCompile(`^(underlay|router|worker-[0-9]+)$`)
