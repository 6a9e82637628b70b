// Package plan says which host ports lead to a pod. Inputs are the runtime's
// portMappings and the pod's addresses; outputs are Elements: an address and
// port of the node, and where what comes there goes. It refuses ports and
// addresses that cannot work, and finds two pods that want the same. It does
// not touch the kernel.
package plan

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/plugins/strict"
)

// Protocol is a transport protocol's number.
type Protocol uint8

// The protocols that have ports in Kubernetes.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

var names = map[Protocol]string{TCP: "tcp", UDP: "udp", SCTP: "sctp"}

func (p Protocol) String() string { return names[p] }

// MarshalText writes the name.
func (p Protocol) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the name, in either case: Kubernetes writes TCP,
// runtimes tcp.
func (p *Protocol) UnmarshalText(text []byte) error {
	for number, name := range names {
		if strings.EqualFold(name, string(text)) {
			*p = number
			return nil
		}
	}
	return fmt.Errorf("%q is none of tcp, udp, sctp", text)
}

// Mapping is one of the runtime's portMappings.
type Mapping struct {
	Protocol Protocol
	// HostIP is invalid where all addresses of the node are meant, and
	// unspecified where all of its family are.
	HostIP                  netip.Addr
	HostPort, ContainerPort uint16
}

// Element says where packets to Host and HostPort go. Host is unspecified
// where all addresses of its family are meant.
type Element struct {
	Protocol Protocol   `json:"protocol"`
	Host     netip.Addr `json:"host"`
	HostPort uint16     `json:"hostPort"`
	Pod      netip.Addr `json:"pod"`
	PodPort  uint16     `json:"podPort"`
}

// Valid reports whether e can be in the kernel.
func (e Element) Valid() bool {
	return names[e.Protocol] != "" && e.Host.IsValid() && e.Pod.IsValid() && e.Host.Is4() == e.Pod.Is4() &&
		e.Host.Zone() == "" && e.HostPort > 0 && e.PodPort > 0
}

// String is the host's side: it is what pods fight over.
func (e Element) String() string {
	return fmt.Sprintf("%s/%s", netip.AddrPortFrom(e.Host, e.HostPort), e.Protocol)
}

// meets reports whether one packet could be for both, as with bind(2).
func (e Element) meets(o Element) bool {
	return e.Protocol == o.Protocol && e.HostPort == o.HostPort && e.Host.Is4() == o.Host.Is4() &&
		(e.Host == o.Host || e.Host.IsUnspecified() || o.Host.IsUnspecified())
}

// Conflict finds an element of mine that a packet for one of theirs could be
// for as well.
func Conflict(mine, theirs []Element) (Element, bool) {
	for _, m := range mine {
		if slices.ContainsFunc(theirs, m.meets) {
			return m, true
		}
	}
	return Element{}, false
}

// Parse reads runtimeConfig.portMappings. One without a host port asks for
// nothing.
func Parse(raw json.RawMessage) ([]Mapping, error) {
	const key = "runtimeConfig.portMappings"
	var list []json.RawMessage
	if len(raw) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf("%s: want a list, have %s", key, strict.Shorten(raw))
	}
	var mappings []Mapping
	for i, object := range list {
		path := fmt.Sprintf("%s[%d]", key, i)
		var (
			m                       = Mapping{Protocol: TCP}
			hostIP                  string
			hostPort, containerPort int
		)
		err := strict.Object(object, path, strict.Fields{
			"hostPort": &hostPort, "containerPort": &containerPort, "protocol": &m.Protocol, "hostIP": &hostIP,
			// As containerd writes them.
			"HostPort": &hostPort, "ContainerPort": &containerPort, "Protocol": &m.Protocol, "HostIP": &hostIP,
		})
		if err != nil {
			return nil, err
		}
		if hostPort == 0 {
			continue
		}
		for _, p := range []struct {
			name string
			have int
			to   *uint16
		}{{"hostPort", hostPort, &m.HostPort}, {"containerPort", containerPort, &m.ContainerPort}} {
			if p.have < 1 || p.have > 65535 {
				return nil, fmt.Errorf("%s.%s: %d is no port; give 1 to 65535", path, p.name, p.have)
			}
			*p.to = uint16(p.have)
		}
		if m.HostIP, err = parseHostIP(hostIP); err != nil {
			return nil, fmt.Errorf("%s.hostIP: %w", path, err)
		}
		mappings = append(mappings, m)
	}
	return mappings, nil
}

func parseHostIP(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() || a.IsMulticast() {
		return a, fmt.Errorf("%q is no address a node can have; give an IPv4 or IPv6 address, or nothing for all", s)
	}
	return a, nil
}

// Elements is what mappings come to for a pod with these addresses, of which
// the first of each family counts.
func Elements(mappings []Mapping, pod []netip.Addr) ([]Element, error) {
	var list []Element
	for _, m := range mappings {
		served := false
		for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
			i := slices.IndexFunc(pod, func(a netip.Addr) bool { return a.Is4() == any.Is4() })
			if i < 0 || m.HostIP.IsValid() && m.HostIP.Is4() != any.Is4() {
				continue
			}
			served = true
			e := Element{Protocol: m.Protocol, Host: any, HostPort: m.HostPort, Pod: pod[i], PodPort: m.ContainerPort}
			if m.HostIP.IsValid() {
				e.Host = m.HostIP
			}
			if slices.Contains(list, e) {
				continue
			}
			if _, taken := Conflict([]Element{e}, list); taken {
				return nil, fmt.Errorf("runtimeConfig.portMappings: %s is given twice for one pod; give each host port one container port", e)
			}
			list = append(list, e)
		}
		if !served {
			return nil, fmt.Errorf("runtimeConfig.portMappings: hostIP %s with host port %d: the pod has no address of that family", m.HostIP, m.HostPort)
		}
	}
	return list, nil
}
