// Package plan says what one attachment of a pod consists of. Inputs are the
// configuration, the call and the addresses that IPAM gave; output is a Plan:
// links, addresses, routes and neighbours as values. It refuses addresses
// that do not make a working pod, and does not touch the kernel.
package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

const (
	// LinkGroup marks the host's ends of pod links: what concerns pods
	// matches the group, never a name.
	LinkGroup = 0x706c
	// RouteProtocol marks our routes.
	RouteProtocol = 157
	// hostPrefix and so many bytes of a digest name the host's end of a link.
	hostPrefix = "plw"
	hostDigest = 6
	// minIPv6MTU is RFC 8200's, section 5.
	minIPv6MTU = 1280
	// maxAlias is IFALIASZ less the final zero.
	maxAlias = 255
)

// HostMAC is the address of the host's end of every pod link. The links have
// nobody else on them, so they can share it, and a pod's neighbour entries
// never change.
var HostMAC = MAC{0x02, 'p', 'l', 'w', 0x00, 0x01}

// The gateways exist in the pod's neighbour table only.
var (
	gateway4 = netip.AddrFrom4([4]byte{169, 254, 1, 1})
	gateway6 = netip.MustParseAddr("fe80::1")
)

// Plan is one attachment.
type Plan struct {
	Host, Pod Link
	Addresses []Address
	// Routes are the pod's, all through the gateway of their family: a
	// default route for each family that has an address, then others.
	Routes []Route
}

// Link is one end of a veth pair.
type Link struct {
	Name  string
	MAC   MAC
	MTU   int
	Alias string
}

// MAC is an EUI-48 address; zero where it does not matter.
type MAC [6]byte

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Address is an address of the pod and what belongs to it.
type Address struct {
	Addr netip.Addr
	// Gateway is where the pod sends everything of this family.
	Gateway netip.Addr
	// Source is the node's address for packets of its own to the pod; the
	// zero Addr leaves the choice to the kernel.
	Source netip.Addr
}

// Route is a route inside the pod.
type Route struct {
	Dst     netip.Prefix
	Gateway netip.Addr
	// MTU, AdvMSS and Priority are 0 where the kernel decides.
	MTU, AdvMSS, Priority int
}

// Request is what a plan is made of.
type Request struct {
	Network             string
	ContainerID, IfName string
	Namespace, Name     string
	MTU                 int // 0: unknown
	// MAC of the pod's end; zero for one that is derived.
	MAC   MAC
	Addrs []netip.Addr
	// Routes are extra ones, by destination; their Gateway is not read.
	Routes        []Route
	NodeAddresses []netip.Addr
}

// New makes a plan. Two calls with one container and interface name differ
// in nothing but what r says: names and addresses of links are derived, so
// that a half-made attachment can be found again.
func New(r Request) (Plan, error) {
	p := Plan{
		Host: Link{Name: HostName(r.ContainerID, r.IfName), MAC: HostMAC, MTU: r.MTU, Alias: alias(r)},
		Pod:  Link{Name: r.IfName, MAC: podMAC(r.ContainerID, r.IfName), MTU: r.MTU},
	}
	if r.MAC != (MAC{}) {
		p.Pod.MAC = r.MAC
	}
	if len(r.Addrs) == 0 {
		return Plan{}, errors.New("IPAM gave no address; a pod needs one")
	}
	for _, a := range r.Addrs {
		if !a.IsValid() || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() {
			return Plan{}, fmt.Errorf("IPAM gave %s, which is no address for a pod", a)
		}
		if a.Is6() && r.MTU != 0 && r.MTU < minIPv6MTU {
			return Plan{}, fmt.Errorf("mtu: %d is less than the %d bytes that IPv6 needs, and IPAM gave %s; raise mtu or remove the IPv6 range", r.MTU, minIPv6MTU, a)
		}
		first := p.gateway(a) == (netip.Addr{})
		addr := Address{Addr: a, Gateway: gatewayOf(a), Source: Source(r.NodeAddresses, a)}
		p.Addresses = append(p.Addresses, addr)
		if first {
			p.Routes = append(p.Routes, Route{Dst: netip.PrefixFrom(anyOf(a), 0), Gateway: addr.Gateway})
		}
	}
	for _, route := range r.Routes {
		if err := p.addRoute(route); err != nil {
			return Plan{}, err
		}
	}
	return p, nil
}

// addRoute adds a route, or replaces the default route of its family.
func (p *Plan) addRoute(r Route) error {
	if !r.Dst.IsValid() {
		return errors.New("ipam.routes: a route without destination; give it a dst such as 10.0.0.0/8")
	}
	if r.Gateway = p.gateway(r.Dst.Addr()); !r.Gateway.IsValid() {
		return fmt.Errorf("ipam.routes: %s has no address of its family in the pod; add a range of that family, or remove the route", r.Dst)
	}
	r.Dst = r.Dst.Masked()
	for i, o := range p.Routes {
		if o.Dst == r.Dst {
			p.Routes[i] = r
			return nil
		}
	}
	p.Routes = append(p.Routes, r)
	return nil
}

// gateway is what the plan has for a's family, if anything.
func (p *Plan) gateway(a netip.Addr) netip.Addr {
	for _, o := range p.Addresses {
		if o.Addr.Is4() == a.Is4() {
			return o.Gateway
		}
	}
	return netip.Addr{}
}

// HostName is the host's end of the link of a container's interface.
func HostName(containerID, ifName string) string {
	sum := sha256.Sum256([]byte(containerID + "/" + ifName))
	return hostPrefix + hex.EncodeToString(sum[:hostDigest])
}

// podMAC is locally administered and unicast.
func podMAC(containerID, ifName string) MAC {
	sum := sha256.Sum256([]byte("mac " + containerID + "/" + ifName))
	m := MAC(sum[:6])
	m[0] = m[0]&^1 | 2
	return m
}

// alias tells a person with `ip link` whose link it is, and GC which network's.
func alias(r Request) string {
	s := r.Network + ":" + r.ContainerID
	if r.Name != "" {
		s = r.Network + ":" + r.Namespace + "/" + r.Name
	}
	return s[:min(len(s), maxAlias)]
}

// BelongsTo reports whether a link of that name and alias is the host's end of
// an attachment to a network. One without alias is of an ADD that was killed
// half-way, whatever its network.
func BelongsTo(network, name, alias string) bool {
	digits, ours := strings.CutPrefix(name, hostPrefix)
	if _, err := hex.DecodeString(digits); !ours || err != nil || len(digits) != 2*hostDigest {
		return false
	}
	of, _, marked := strings.Cut(alias, ":")
	return alias == "" || marked && of == network
}

// IsGateway reports whether a is what pods send everything to.
func IsGateway(a netip.Addr) bool { return a == gateway4 || a == gateway6 }

func gatewayOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return gateway4
	}
	return gateway6
}

func anyOf(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// Source is the node's address for packets of its own to a pod's address: the
// first of its family, the zero Addr if there is none.
func Source(node []netip.Addr, a netip.Addr) netip.Addr {
	for _, o := range node {
		if o.Is4() == a.Is4() {
			return o
		}
	}
	return netip.Addr{}
}
