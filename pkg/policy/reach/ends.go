package reach

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
)

// External is how an end outside the cluster is written when it does not
// matter which one.
const External = "external"

// outside are addresses of documentation's (RFC 5737, RFC 3849).
var outside = []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}

// end is one end of a connection.
type end struct {
	name  string
	addrs []netip.Addr
	pod   *policy.Pod
	// node is its name, if it is one.
	node string
}

// isNode says that e is the node on which the other end is a pod.
func (e end) isNode(other end) bool {
	return e.node != "" && other.pod != nil && other.pod.Node == e.node
}

// end finds who is meant: NAMESPACE/POD, node/NAME, an address or External.
func (c *Cluster) end(text string) (end, error) {
	if text == External {
		return end{name: External, addrs: outside}, nil
	}
	if a, err := netip.ParseAddr(strings.Trim(text, "[]")); err == nil {
		return c.at(a.Unmap()), nil
	}
	first, name, ok := strings.Cut(text, "/")
	if !ok {
		return end{}, fmt.Errorf("%q is neither NAMESPACE/POD nor node/NAME, an address or %s", text, External)
	}
	key := policy.Key{Namespace: first, Name: name}
	for i, p := range c.objects.Pods {
		if p.Key == key {
			if len(p.Addresses) == 0 {
				return end{}, fmt.Errorf("pod %s has no address yet", key)
			}
			return end{name: key.String(), addrs: p.Addresses, pod: &c.objects.Pods[i]}, nil
		}
	}
	if first == "node" {
		for _, n := range c.objects.Nodes {
			if n.Name == name {
				return end{name: text, addrs: n.Addresses, node: name}, nil
			}
		}
		return end{}, fmt.Errorf("there is no node %s", name)
	}
	return end{}, fmt.Errorf("there is no pod %s with a network of its own: it may have ended, or use its node's, and is then node/NAME to policies", key)
}

// at is who has an address: of several pods, the one that was made last.
func (c *Cluster) at(a netip.Addr) end {
	found := end{name: a.String(), addrs: []netip.Addr{a}}
	for i, p := range c.objects.Pods {
		if slices.Contains(p.Addresses, a) && (found.pod == nil || !p.Created.Before(found.pod.Created)) {
			found.pod = &c.objects.Pods[i]
		}
	}
	for _, n := range c.objects.Nodes {
		if found.pod == nil && slices.Contains(n.Addresses, a) {
			found.node = n.Name
		}
	}
	return found
}

// port is that of a destination; name means one of the pod's.
type port struct {
	proto  policy.Protocol
	number uint16
	name   string
}

var protocols = map[string]policy.Protocol{"": service.TCP, "tcp": service.TCP, "udp": service.UDP, "sctp": service.SCTP}

// cutPort reads END:PORT or END:PORT/PROTOCOL.
func cutPort(text string) (string, port, error) {
	i := strings.LastIndex(text, ":")
	if i < 0 {
		return "", port{}, fmt.Errorf("%q has no port: write END:PORT, or END:PORT/udp", text)
	}
	number, proto, _ := strings.Cut(text[i+1:], "/")
	p := port{name: number}
	var known bool
	if p.proto, known = protocols[strings.ToLower(proto)]; !known {
		return "", p, fmt.Errorf("%q: %q is no protocol with ports: write tcp, udp or sctp", text, proto)
	}
	if n, err := strconv.ParseUint(number, 10, 16); err == nil && n > 0 {
		p.number, p.name = uint16(n), ""
	} else if err == nil || number == "" || number[0] >= '0' && number[0] <= '9' {
		return "", p, fmt.Errorf("%q: %q is no port: write one of 1..65535, or a name", text, number)
	}
	return text[:i], p, nil
}

// resolve finds the number of a name.
func (p *port) resolve(pod *policy.Pod) error {
	if p.name == "" {
		return nil
	}
	if pod != nil {
		for _, n := range pod.Ports {
			if n.Name == p.name && n.Protocol == p.proto {
				p.number = n.Port
				return nil
			}
		}
	}
	return fmt.Errorf("the destination has no %s port named %q", p.proto, p.name)
}
