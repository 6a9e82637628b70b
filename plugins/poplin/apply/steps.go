package apply

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/poplin/plan"
	"poplin.dev/poplin/plugins/wire"
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

func linkAttrs(w *wire.Attrs, l plan.Link) {
	w.Text(unix.IFLA_IFNAME, l.Name)
	w.Bytes(unix.IFLA_ADDRESS, l.MAC[:])
	w.Host(unix.IFLA_MTU, uint32(l.MTU))
}

// configure sets what the host's end must be before it is up, and returns its
// index. It has no address of its own, not even a link-local one; it sends
// no redirects, since the pod has no other way; reverse path filtering is
// loose, as the strict one would drop packets of asymmetric routes.
func (s socket) configure(l plan.Link, ipv6 bool) (index int32, err error) {
	m := wire.Message{What: "configure link " + l.Name, Kind: unix.RTM_NEWLINK, Body: linkHeader(0, 0, 0)}
	m.Body.Text(unix.IFLA_IFNAME, l.Name)
	if l.Alias != "" {
		m.Body.Text(unix.IFLA_IFALIAS, l.Alias)
	}
	m.Body.Nest(unix.IFLA_AF_SPEC, func() {
		m.Body.Nest(unix.AF_INET, func() {
			m.Body.Nest(iflaInetConf, func() {
				m.Body.Host(ipv4Forwarding, 1)
				m.Body.Host(ipv4AcceptRedirects, 0)
				m.Body.Host(ipv4SendRedirects, 0)
				m.Body.Host(ipv4RPFilter, 2)
			})
		})
		if ipv6 {
			m.Body.Nest(unix.AF_INET6, func() { m.Body.Bytes(iflaInet6AddrGenMode, []byte{addrGenModeNone}) })
		}
	})
	answers, err := s.do(m, getLink(l.Name))
	if err != nil {
		return 0, err
	}
	return indexOf(l.Name, answers)
}

// link is the index of the link with that name; ENODEV if there is none.
func (s socket) link(name string) (int32, error) {
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

func getLink(name string) wire.Message {
	m := wire.Message{What: "find link " + name, Kind: unix.RTM_GETLINK, Body: linkHeader(0, 0, 0)}
	m.Body.Text(unix.IFLA_IFNAME, name)
	return m
}

func deleteLink(name string) wire.Message {
	m := wire.Message{What: "delete link " + name, Kind: unix.RTM_DELLINK, Body: linkHeader(0, 0, 0)}
	m.Body.Text(unix.IFLA_IFNAME, name)
	return m
}

func raise(index int32) wire.Message {
	return wire.Message{What: "set link up", Kind: unix.RTM_NEWLINK, Body: linkHeader(index, unix.IFF_UP, unix.IFF_UP)}
}

// address is the whole prefix of its own: nothing but the gateway is on the
// link. Nobody else is, either, so it need not wait for duplicate address
// detection.
func address(index int32, a netip.Addr) wire.Message {
	m := wire.Message{What: fmt.Sprintf("add address %s", a), Kind: unix.RTM_NEWADDR, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Body: addrHeader(a, index)}
	m.Body.Bytes(unix.IFA_LOCAL, a.AsSlice())
	m.Body.Bytes(unix.IFA_ADDRESS, a.AsSlice())
	m.Body.Host(unix.IFA_FLAGS, unix.IFA_F_NODAD)
	return m
}

// neighbour is permanent: there is no ARP and no neighbour discovery to wait
// for, and nothing that could overflow a table (permanent entries are not
// counted against gc_thresh3).
func neighbour(index int32, a netip.Addr, mac plan.MAC) wire.Message {
	m := wire.Message{What: fmt.Sprintf("add neighbour %s", a), Kind: unix.RTM_NEWNEIGH, Flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE, Body: neighHeader(a, index, unix.NUD_PERMANENT)}
	m.Body.Bytes(unix.NDA_DST, a.AsSlice())
	m.Body.Bytes(unix.NDA_LLADDR, mac[:])
	return m
}

// hostRoute leads to the pod. It replaces what stands there: IPAM gave the
// address to this pod, so the other one is left over.
func hostRoute(index int32, a plan.Address) wire.Message {
	dst := netip.PrefixFrom(a.Addr, a.Addr.BitLen())
	what := fmt.Sprintf("add route to %s", a.Addr)
	if a.Source.IsValid() {
		what += fmt.Sprintf(" from %s (nodeAddresses: an address of this node)", a.Source)
	}
	m := wire.Message{What: what, Kind: unix.RTM_NEWROUTE, Flags: unix.NLM_F_CREATE | unix.NLM_F_REPLACE,
		Body: routeHeader(dst, plan.RouteProtocol, unix.RT_SCOPE_LINK, 0)}
	m.Body.Bytes(unix.RTA_DST, a.Addr.AsSlice())
	m.Body.Host(unix.RTA_OIF, uint32(index))
	if a.Source.IsValid() {
		m.Body.Bytes(unix.RTA_PREFSRC, a.Source.AsSlice())
	}
	return m
}

func podRoute(index int32, r plan.Route) wire.Message {
	m := wire.Message{What: fmt.Sprintf("add route to %s", r.Dst), Kind: unix.RTM_NEWROUTE, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL,
		Body: routeHeader(r.Dst, plan.RouteProtocol, unix.RT_SCOPE_UNIVERSE, unix.RTNH_F_ONLINK)}
	if r.Dst.Bits() > 0 {
		m.Body.Bytes(unix.RTA_DST, r.Dst.Addr().AsSlice())
	}
	m.Body.Host(unix.RTA_OIF, uint32(index))
	m.Body.Bytes(unix.RTA_GATEWAY, r.Gateway.AsSlice())
	if r.Priority > 0 {
		m.Body.Host(unix.RTA_PRIORITY, uint32(r.Priority))
	}
	if r.MTU > 0 || r.AdvMSS > 0 {
		m.Body.Nest(unix.RTA_METRICS, func() {
			for kind, value := range map[uint16]int{unix.RTAX_MTU: r.MTU, unix.RTAX_ADVMSS: r.AdvMSS} {
				if value > 0 {
					m.Body.Host(kind, uint32(value))
				}
			}
		})
	}
	return m
}
