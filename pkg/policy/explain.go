package policy

import (
	"net/netip"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/policy/peers"
	"poplin.dev/poplin/pkg/policy/ports"
	"poplin.dev/poplin/pkg/policy/verdict"
)

// Packet is one that opens a connection. Its destination is the endpoint that
// a Service chose.
type Packet struct {
	Src   netip.Addr
	Dst   netip.AddrPort
	Proto policy.Protocol
}

// Explain says what becomes of a packet at those of its ends that are pods of
// this node, the sender first: whether the kernel is told to let it pass, and
// which rule is behind that. For what a pod sends itself there is no decision.
func (t *Table) Explain(p Packet) (list []verdict.Decision) {
	t.settle()
	src, dst, packet := p.Src, p.Dst.Addr(), ports.At(p.Proto, p.Dst.Port())
	if src == dst {
		return nil
	}
	for _, end := range []struct {
		direction  verdict.Direction
		pod, other netip.Addr
	}{{verdict.Egress, src, dst}, {verdict.Ingress, dst, src}} {
		pod := t.podAt(end.pod)
		if pod == nil || t.subjects[pod.Key] == nil {
			continue
		}
		class := t.classOf(end.other)
		d := verdict.Find(end.direction, t.statements(pod, end.direction), class, packet)
		d.Pod = pod.Key
		d.Allowed = len(packet.And(t.subjects[pod.Key].profiles[end.direction].Decide(class))) > 0
		list = append(list, d)
	}
	return list
}

// Name is the pod or node that has an address; without one, the address.
func (t *Table) Name(a netip.Addr) string {
	switch h := t.holders[a]; {
	case h == nil:
		return a.String()
	case h.owner() != nil:
		return h.owner().Key.String()
	default:
		return "node " + h.nodes[0].Name
	}
}

// podAt is the pod that has an address, nil if none has.
func (t *Table) podAt(a netip.Addr) *pod {
	if h := t.holders[a]; h != nil {
		return h.owner()
	}
	return nil
}

// classOf is the class that the kernel finds for an address.
func (t *Table) classOf(a netip.Addr) *peers.Class {
	if h := t.holders[a]; h != nil {
		return h.class
	}
	for r, c := range t.segments {
		if r.Contains(a) {
			return c
		}
	}
	return t.classes.None
}
