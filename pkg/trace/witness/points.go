package witness

import (
	"net/netip"

	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/trace"
	"poplin.dev/poplin/pkg/trace/way"
)

// point is where a packet should be seen.
type point struct {
	node, hook, end string
	pod             netip.Addr // whose namespace it is, if not the node's
	outer, back     bool
	where           string
	// class is the hop that is broken where the packet does not get here.
	class way.Class
}

// points are all on the way there and back, in order.
func points(c *way.Case, sender string) (list []point) {
	e, n := c.Enters, c.Node
	add := func(node, hook, end, where string, class way.Class) {
		list = append(list, point{node: node, hook: hook, end: end, where: where, class: class})
	}
	switch {
	case c.Origin == trace.FromPod:
		list = append(list, point{node: e, hook: "postrouting", end: facts.End, pod: c.From, where: "left the pod", class: way.PodRoute})
		add(e, "prerouting", facts.Begin, "came from the pod", way.PodLink)
	case sender == e:
		add(e, "output", facts.Begin, "was sent", way.Route)
	default:
		add(sender, "output", facts.Begin, "was sent", way.Route)
		add(e, "prerouting", facts.Begin, "came in", way.Underlay)
	}
	list = append(list, there(c, sender)...)
	if c.Pod != nil {
		inside := func(hook, end, where string, class way.Class, back bool) {
			list = append(list, point{node: n, hook: hook, end: end, pod: c.Dst.Addr(), where: where, class: class, back: back})
		}
		inside("prerouting", facts.Begin, "came into the pod", way.PodLink, false)
		inside("input", facts.End, "was received", way.PodAddress, false)
		inside("output", facts.Begin, "was answered", way.Socket, true)
		inside("postrouting", facts.End, "left the pod, as an answer", way.PodRoute, true)
	} else {
		list = append(list, point{node: n, hook: "output", end: facts.Begin, where: "was answered", class: way.Socket, back: true})
	}
	return append(list, home(c, sender)...)
}

// there is the way from where the packet came in to its receiver.
func there(c *way.Case, sender string) (list []point) {
	add := func(node, hook, end, where string, outer bool, class way.Class) {
		list = append(list, point{node: node, hook: hook, end: end, where: where, outer: outer, class: class})
	}
	arrive := func(node string) {
		if c.Pod == nil {
			add(node, "input", facts.End, "was received", false, way.Route)
			return
		}
		add(node, "forward", facts.End, "was forwarded", false, way.Route)
		add(node, "postrouting", facts.End, "left for the pod", false, way.Route)
	}
	own := c.Origin != trace.FromPod && sender == c.Enters
	if !c.Remote() {
		if own && c.Pod != nil {
			add(c.Enters, "postrouting", facts.End, "left for the pod", false, way.Route)
		} else {
			arrive(c.Enters)
		}
		return list
	}
	if !own {
		add(c.Enters, "forward", facts.End, "was forwarded", false, way.Route)
	}
	add(c.Enters, "postrouting", facts.End, "left", false, way.Route)
	class := way.Underlay
	if c.Tunnels() {
		add(c.Enters, "postrouting", facts.End, "left in the overlay", true, way.Overlay)
		add(c.Node, "prerouting", facts.Begin, "came in the overlay", true, way.Underlay)
		add(c.Node, "input", facts.End, "was let in from the overlay", true, way.Guard)
		class = way.Decapsulation
	}
	add(c.Node, "prerouting", facts.Begin, "came in", false, class)
	arrive(c.Node)
	return list
}

// home is the way back of an answer.
func home(c *way.Case, sender string) (list []point) {
	add := func(node, hook, end, where string, outer bool, class way.Class) {
		list = append(list, point{node: node, hook: hook, end: end, where: where + ", as an answer", outer: outer, back: true, class: class})
	}
	if c.Pod != nil {
		add(c.Node, "prerouting", facts.Begin, "came from the pod", false, way.PodLink)
	}
	if c.Remote() {
		if c.Pod != nil {
			add(c.Node, "forward", facts.End, "was forwarded", false, way.Return)
		}
		add(c.Node, "postrouting", facts.End, "left", false, way.Return)
		if c.Tunnels() {
			add(c.Node, "postrouting", facts.End, "left in the overlay", true, way.Return)
			add(c.Enters, "prerouting", facts.Begin, "came in the overlay", true, way.Return)
			add(c.Enters, "input", facts.End, "was let in from the overlay", true, way.Return)
		}
		add(c.Enters, "prerouting", facts.Begin, "came in", false, way.Return)
	}
	switch {
	case c.Origin == trace.FromPod:
		add(c.Enters, "postrouting", facts.End, "left for the client", false, way.Return)
		list = append(list, point{node: c.Enters, hook: "input", end: facts.End, pod: c.From, where: "was received by the client", back: true, class: way.PodLink})
	case sender == c.Enters:
		add(c.Enters, "input", facts.End, "was received by the client", false, way.Return)
	default:
		add(c.Enters, "postrouting", facts.End, "left for the client", false, way.Return)
		add(sender, "input", facts.End, "was received by the client", false, way.Return)
	}
	return list
}
