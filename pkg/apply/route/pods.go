package route

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// PodLink is the node's end of a pod's link.
type PodLink struct {
	Name string
	MTU  int
	// the device's sysctls, as arrays of 32 bits in the kernel's order
	conf4, conf6 []byte
}

// skipStats leaves the counters out of a list of links (RTEXT_FILTER_SKIP_STATS).
const skipStats = 8

// PodLinks lists the links of a group. The list holds each link's sysctls
// too, so that looking at those of all pods is one request and not a thousand
// files.
func (*Applier) PodLinks(group uint32) ([]PodLink, error) {
	messages, err := whole(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
		req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	})
	if err != nil {
		return nil, fmt.Errorf("list the pods' links: %w", err)
	}
	var links []PodLink
	for _, m := range messages {
		link, in, err := podLink(m)
		if err != nil {
			return nil, fmt.Errorf("read the list of links: %w", err)
		}
		if in == group {
			links = append(links, link)
		}
	}
	return links, nil
}

func podLink(m []byte) (l PodLink, group uint32, err error) {
	if len(m) < unix.SizeofIfInfomsg {
		return l, 0, fmt.Errorf("a link's message has %d bytes", len(m))
	}
	attrs, err := nl.ParseRouteAttr(m[unix.SizeofIfInfomsg:])
	if err != nil {
		return l, 0, err
	}
	for _, a := range attrs {
		switch a.Attr.Type &^ unix.NLA_F_NESTED {
		case unix.IFLA_IFNAME:
			l.Name = nl.BytesToString(a.Value)
		case unix.IFLA_MTU:
			l.MTU = int(word(a.Value, 0))
		case unix.IFLA_GROUP:
			group = word(a.Value, 0)
		case unix.IFLA_AF_SPEC:
			l.conf4 = nested(a.Value, unix.AF_INET, 1)  // IFLA_INET_CONF
			l.conf6 = nested(a.Value, unix.AF_INET6, 2) // IFLA_INET6_CONF
		}
	}
	return l, group, nil
}

// PodAddresses are those of this node's pods: what the CNI plugin made routes
// to, which lead to one address and have no next hop.
func (a *Applier) PodAddresses() ([]netip.Addr, error) {
	list, err := a.listRoutes()
	if err != nil {
		return nil, err
	}
	var pods []netip.Addr
	for _, r := range list {
		if r.Type != unix.RTN_UNICAST || r.Gw != nil || r.Dst == nil {
			continue
		}
		if ones, bits := r.Dst.Mask.Size(); ones == bits {
			if ip, ok := ipOf(r.Dst.IP); ok {
				pods = append(pods, ip)
			}
		}
	}
	return pods, nil
}

// nested follows a path of attributes.
func nested(b []byte, path ...uint16) []byte {
	for _, kind := range path {
		attrs, err := nl.ParseRouteAttr(b)
		if err != nil {
			return nil
		}
		b = nil
		for _, a := range attrs {
			if a.Attr.Type&^unix.NLA_F_NESTED == kind {
				b = a.Value
			}
		}
	}
	return b
}

func word(b []byte, i int) uint32 {
	if len(b) < 4*(i+1) {
		return 0
	}
	return binary.NativeEndian.Uint32(b[4*i:])
}

// Where sysctls stand in the arrays (linux/ip.h counts from 1, linux/ipv6.h from 0).
var (
	places4 = map[string]int{"forwarding": 0, "accept_redirects": 3, "send_redirects": 5, "rp_filter": 7}
	places6 = map[string]int{"accept_ra": 3, "accept_redirects": 4, "autoconf": 5}
)

// Setting is a sysctl of the link; known is false for one that this package,
// or a kernel without IPv6, knows nothing of.
func (l PodLink) Setting(family, name string) (value int, known bool) {
	places, conf := places4, l.conf4
	if family == "ipv6" {
		places, conf = places6, l.conf6
	}
	i, known := places[name]
	if !known || len(conf) < 4*(i+1) {
		return 0, false
	}
	return int(int32(word(conf, i))), true
}
