package way

import (
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/trace"
)

// Case is one way that the request may take: one family, one endpoint.
type Case struct {
	*Input
	Src End
	// From is the source address; invalid for any client outside.
	From netip.Addr
	// Enters is the node on which the packet meets Poplin first.
	Enters string
	Origin trace.Origin
	// Front is where the client sends, Dst where that ends. They are the same
	// where no Service is between.
	Front netip.AddrPort
	Dst   netip.AddrPort
	Proto service.Protocol
	// Pod has Dst; nil where a node has.
	Pod  *object.Pod
	Node string
}

// Translated reports whether a Service is between.
func (c *Case) Translated() bool { return c.Front != c.Dst }

// Served reports whether that is a Service, and no host port.
func (c *Case) Served() bool { return c.Translated() && c.To.Service != nil }

// Remote reports whether the packet crosses from one node to another.
func (c *Case) Remote() bool { return c.Enters != "" && c.Node != "" && c.Enters != c.Node }

// Tunnels reports whether packets are encapsulated.
func (c *Case) Tunnels() bool {
	if !c.Remote() || c.Pod == nil {
		return false
	}
	net := c.Desired[c.Enters].Net
	r, ok := Wanted(net, c.Dst.Addr())
	return ok && net.Link.Name != "" && r.Dev == net.Link.Name
}

// Other is the other end's node, where the packet crosses.
func (c *Case) Other(node string) string {
	switch {
	case !c.Remote():
		return ""
	case node == c.Enters:
		return c.Node
	}
	return c.Enters
}

// Flows are what nodes on the way are asked about.
func (c *Case) Flows() []facts.Flow {
	list := []facts.Flow{{Src: c.From, To: c.Dst, Proto: c.Proto}}
	if c.Translated() {
		list = append(list, facts.Flow{Src: c.From, To: c.Front, Proto: c.Proto})
	}
	return list
}

// Cases are the ways that a request may take: from the source to the front,
// or through an Ingress controller to its endpoints.
func Cases(in *Input) []Case {
	if in.Web != nil {
		return in.webCases()
	}
	return in.cases(in.From, in.To)
}

// mostEndpoints bounds how many endpoints of a Service are looked at.
const mostEndpoints = 16

func (in *Input) cases(from End, to Target) (list []Case) {
	for _, front := range to.Addrs {
		src, ok := from.Address(front)
		if !ok {
			continue // the source does not speak this family
		}
		c := Case{Input: in, Src: from, From: src, Front: netip.AddrPortFrom(front, to.Port), Proto: to.Proto}
		c.Enters, c.Origin = in.enters(from, front)
		if to.Service == nil {
			c.Dst = c.Front
			if to.Inner != 0 {
				a, ok := End{Pod: to.Pod, Addrs: to.Pod.Addresses()}.Address(front)
				if !ok {
					continue
				}
				c.Dst = netip.AddrPortFrom(a, to.Inner)
			}
			list = append(list, in.ending(c))
			continue
		}
		port, _ := to.ServicePort()
		for _, e := range in.Ready(to.Service, port, front.Is4()) {
			if len(list) == 2*mostEndpoints {
				return list
			}
			if !in.permits(to, c, e) {
				continue
			}
			one := c
			one.Dst = e.At
			if one.Enters == "" { // a load balancer's choice: any node may get it
				one.Enters = e.Node
			}
			list = append(list, in.ending(one))
		}
	}
	return list
}

// ending finds who has the destination.
func (in *Input) ending(c Case) Case {
	if c.Pod = in.Objects.PodAt(c.Dst.Addr()); c.Pod != nil {
		c.Node = c.Pod.Spec.NodeName
	} else {
		for _, n := range in.Objects.Nodes {
			if slices.Contains(n.Addresses(), c.Dst.Addr()) {
				c.Node = n.Name
			}
		}
	}
	if c.Enters == "" {
		c.Enters = c.Node
	}
	return c
}

// enters says on which node a packet meets Poplin first.
func (in *Input) enters(from End, front netip.Addr) (string, trace.Origin) {
	switch {
	case from.Pod != nil && !from.Pod.Spec.HostNetwork:
		return from.Pod.Spec.NodeName, trace.FromPod
	case from.Pod != nil:
		return from.Pod.Spec.NodeName, trace.FromNode
	case from.Node != "":
		return from.Node, trace.FromNode
	}
	for _, n := range in.Objects.Nodes {
		if slices.Contains(n.Addresses(), front) {
			return n.Name, trace.FromOutside
		}
	}
	return "", trace.FromOutside
}

// Involved are the nodes on the way.
func Involved(cases []Case) (names []string) {
	for _, c := range cases {
		for _, n := range []string{c.Enters, c.Node} {
			if n != "" && !slices.Contains(names, n) {
				names = append(names, n)
			}
		}
	}
	return names
}

// At starts a hop on a node; without its facts, it is unknown.
func (c *Case) At(class Class, node, about string) (*Hop, *facts.Node) {
	h := &Hop{Hop: class, Node: node, About: about, Status: OK}
	f, known := c.Facts[node]
	if !known {
		why := c.Absent[node]
		if why == "" {
			why = "nobody was asked"
		}
		h.Unknown("nothing is known of node %s: %s", node, why)
		return h, nil
	}
	return h, &f
}

// Source is the client's address; one that nobody has stands for any.
func (c *Case) Source() netip.Addr {
	switch {
	case c.From.IsValid():
		return c.From
	case c.Dst.Addr().Is4():
		return netip.AddrFrom4([4]byte{198, 51, 100, 1}) // RFC 5737
	}
	return netip.MustParseAddr("2001:db8::1") // RFC 3849
}

// Seen is the source address that the receiver's node sees.
func (c *Case) Seen() netip.Addr {
	if c.Origin == trace.FromPod || c.Enters == c.Node {
		return c.Source()
	}
	if c.Origin == trace.FromOutside && !c.masqueraded() {
		return c.Source()
	}
	// The node that sends on puts its address there: that of the overlay
	// device, where the packet leaves by it.
	for _, p := range c.Desired[c.Enters].Net.Addrs {
		if p.Addr().Is4() == c.Dst.Addr().Is4() {
			return p.Addr()
		}
	}
	for _, a := range c.nodeAddresses(c.Enters) {
		if a.Is4() == c.Dst.Addr().Is4() {
			return a
		}
	}
	return c.Source()
}

func (c *Case) nodeAddresses(name string) []netip.Addr {
	n, _ := c.Objects.Node(name)
	return n.Addresses()
}

// masqueraded reports whether the endpoint sees an address of the node.
func (c *Case) masqueraded() bool {
	v := trace.Service(c.Desired[c.Enters].Services, nil, trace.Packet{Origin: c.Origin, Src: c.Source(), Dst: c.Front, Proto: c.Proto})
	for _, e := range v.Endpoints {
		if e.Addr == c.Dst {
			return e.Masquerade
		}
	}
	return false
}
