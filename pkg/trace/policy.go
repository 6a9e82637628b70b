package trace

import (
	"net/netip"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/permit"
)

// Policy walks a packet that this node forwards through the policies' part of
// the data path. Its destination is the endpoint that a Service chose. What a
// node exchanges with its own pods is not forwarded, and passes.
func Policy(p permit.Program, pkt Packet) Verdict {
	w := permission{program: p, packet: pkt}
	switch {
	case pkt.Origin == FromNode:
		return w.end(Pass, "what a node sends itself is not for policies to decide")
	case pkt.Src == pkt.Dst.Addr():
		return w.end(Pass, "policy-loops: %s talks to itself", pkt.Src)
	}
	if _, isolated := p.Senders[pkt.Src]; isolated {
		w.step("policy-senders: %s may send only what is permitted", pkt.Src)
		if !w.permitted("egress", p.Egress, pkt.Src, pkt.Dst.Addr()) {
			return w.verdict
		}
	}
	if _, isolated := p.Receivers[pkt.Dst.Addr()]; isolated {
		w.step("policy-receivers: %s may be sent only what is permitted", pkt.Dst.Addr())
		if !w.permitted("ingress", p.Ingress, pkt.Dst.Addr(), pkt.Src) {
			return w.verdict
		}
	}
	return w.end(Pass, "no policy is against it")
}

type permission struct {
	steps
	program permit.Program
	packet  Packet
}

// permitted looks up what a pod and the other end may do.
func (w *permission) permitted(name string, pairs map[permit.Pair]permit.Ports, pod, other netip.Addr) bool {
	class := w.class(other)
	ports, found := pairs[permit.Pair{Pod: pod, Class: class}]
	if found {
		w.step("policy-%s: with %s it may use %s", name, class, ports)
	} else {
		ports, found = pairs[permit.Pair{Pod: pod}]
		w.step("policy-%s: nothing is said of %s; of everybody: %s", name, class, map[bool]string{true: ports.String(), false: "nothing"}[found])
	}
	if !found || !w.open(ports) {
		w.end(Drop, "policy-%s: %s port %d is not permitted", name, w.packet.Proto, w.packet.Dst.Port())
		return false
	}
	return true
}

func (w *permission) class(a netip.Addr) permit.Class {
	if c, ok := w.program.Peers[a]; ok {
		w.step("policy-peers: %s is of class %s", a, c)
		return c
	}
	for r, c := range w.program.Ranges {
		if r.Contains(a) {
			w.step("policy-ranges: %s is in %s, of class %s", a, r, c)
			return c
		}
	}
	w.step("policy-peers: nothing is said of %s", a)
	return 0
}

func (w *permission) open(ports permit.Ports) bool {
	if ports.IsEverything() {
		return true
	}
	switch w.packet.Proto {
	case service.TCP, service.UDP, service.SCTP:
	default:
		return ports.HasOthers()
	}
	for s := range w.program.Ports {
		if s.Ports == ports && s.Proto == w.packet.Proto && s.First <= w.packet.Dst.Port() && w.packet.Dst.Port() <= s.Last {
			w.step("policy-ports: %s", s)
			return true
		}
	}
	return false
}
