package apply

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/poplin/plan"
)

// From linux/veth.h, linux/if_link.h and linux/ip.h; not in x/sys.
const (
	vethInfoPeer         = 1
	iflaInetConf         = 1
	iflaInet6AddrGenMode = 8
	addrGenModeNone      = 1
	ipv4Forwarding       = 1
	ipv4AcceptRedirects  = 4
	ipv4SendRedirects    = 6
	ipv4RPFilter         = 8
)

func (m *message) linkAttrs(l plan.Link) {
	m.attrString(unix.IFLA_IFNAME, l.Name)
	m.attr(unix.IFLA_ADDRESS, l.MAC[:])
	m.attr32(unix.IFLA_MTU, uint32(l.MTU))
}

// configure sets what the host's end must be before it is up, and returns its
// index. It has no address of its own, not even a link-local one; it sends
// no redirects, since the pod has no other way; reverse path filtering is
// loose, as the strict one would drop packets of asymmetric routes.
func (s *socket) configure(l plan.Link, ipv6 bool) (index int32, err error) {
	m := message{kind: unix.RTM_NEWLINK, body: linkHeader(0, 0, 0)}
	m.attrString(unix.IFLA_IFNAME, l.Name)
	if l.Alias != "" {
		m.attrString(unix.IFLA_IFALIAS, l.Alias)
	}
	m.nest(unix.IFLA_AF_SPEC, func() {
		m.nest(unix.AF_INET, func() {
			m.nest(iflaInetConf, func() {
				m.attr32(ipv4Forwarding, 1)
				m.attr32(ipv4AcceptRedirects, 0)
				m.attr32(ipv4SendRedirects, 0)
				m.attr32(ipv4RPFilter, 2)
			})
		})
		if ipv6 {
			m.nest(unix.AF_INET6, func() { m.attr(iflaInet6AddrGenMode, []byte{addrGenModeNone}) })
		}
	})
	answers, err := s.do(step{"configure link " + l.Name, m}, getLink(l.Name))
	if err != nil {
		return 0, err
	}
	return indexOf(l.Name, answers)
}

// link is the index of the link with that name; ENODEV if there is none.
func (s *socket) link(name string) (int32, error) {
	answers, err := s.do(getLink(name))
	if err != nil {
		return 0, err
	}
	return indexOf(name, answers)
}

func indexOf(name string, answers [][]byte) (int32, error) {
	if len(answers) != 1 || len(answers[0]) < unix.SizeofIfInfomsg {
		return 0, fmt.Errorf("find link %s: %w", name, unix.ENODEV)
	}
	return int32(native.Uint32(answers[0][4:])), nil
}

func getLink(name string) step {
	m := message{kind: unix.RTM_GETLINK, body: linkHeader(0, 0, 0)}
	m.attrString(unix.IFLA_IFNAME, name)
	return step{"find link " + name, m}
}

func deleteLink(name string) step {
	m := message{kind: unix.RTM_DELLINK, body: linkHeader(0, 0, 0)}
	m.attrString(unix.IFLA_IFNAME, name)
	return step{"delete link " + name, m}
}

func raise(index int32) step {
	return step{"set link up", message{kind: unix.RTM_NEWLINK, body: linkHeader(index, unix.IFF_UP, unix.IFF_UP)}}
}

// address is the whole prefix of its own: nothing but the gateway is on the
// link. Nobody else is, either, so it need not wait for duplicate address
// detection.
func address(index int32, a netip.Addr) step {
	m := message{kind: unix.RTM_NEWADDR, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, body: addrHeader(a, index)}
	m.attrAddr(unix.IFA_LOCAL, a)
	m.attrAddr(unix.IFA_ADDRESS, a)
	m.attr32(unix.IFA_FLAGS, unix.IFA_F_NODAD)
	return step{fmt.Sprintf("add address %s", a), m}
}

// neighbour is permanent: there is no ARP and no neighbour discovery to wait
// for, and nothing that could overflow a table (permanent entries are not
// counted against gc_thresh3).
func neighbour(index int32, a netip.Addr, mac plan.MAC) step {
	m := message{kind: unix.RTM_NEWNEIGH, flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, body: neighHeader(a, index, unix.NUD_PERMANENT)}
	m.attrAddr(unix.NDA_DST, a)
	m.attr(unix.NDA_LLADDR, mac[:])
	return step{fmt.Sprintf("add neighbour %s", a), m}
}

// hostRoute leads to the pod. It replaces what stands there: IPAM gave the
// address to this pod, so the other one is left over.
func hostRoute(index int32, a plan.Address) step {
	dst := netip.PrefixFrom(a.Addr, a.Addr.BitLen())
	m := message{kind: unix.RTM_NEWROUTE, flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE,
		body: routeHeader(dst, plan.RouteProtocol, unix.RT_SCOPE_LINK, 0)}
	m.attrAddr(unix.RTA_DST, a.Addr)
	m.attr32(unix.RTA_OIF, uint32(index))
	what := fmt.Sprintf("add route to %s", a.Addr)
	if a.Source.IsValid() {
		m.attrAddr(unix.RTA_PREFSRC, a.Source)
		what += fmt.Sprintf(" from %s (nodeAddresses: an address of this node)", a.Source)
	}
	return step{what, m}
}

func podRoute(index int32, r plan.Route) step {
	m := message{kind: unix.RTM_NEWROUTE, flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL,
		body: routeHeader(r.Dst, plan.RouteProtocol, unix.RT_SCOPE_UNIVERSE, unix.RTNH_F_ONLINK)}
	if r.Dst.Bits() > 0 {
		m.attrAddr(unix.RTA_DST, r.Dst.Addr())
	}
	m.attr32(unix.RTA_OIF, uint32(index))
	m.attrAddr(unix.RTA_GATEWAY, r.Gateway)
	if r.Priority > 0 {
		m.attr32(unix.RTA_PRIORITY, uint32(r.Priority))
	}
	if r.MTU > 0 || r.AdvMSS > 0 {
		m.nest(unix.RTA_METRICS, func() {
			for kind, value := range map[uint16]int{unix.RTAX_MTU: r.MTU, unix.RTAX_ADVMSS: r.AdvMSS} {
				if value > 0 {
					m.attr32(kind, uint32(value))
				}
			}
		})
	}
	return step{fmt.Sprintf("add route to %s", r.Dst), m}
}
