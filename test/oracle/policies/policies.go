// Package policies answers for policies from the objects alone: may one
// packet pass a node? Inputs are all pods, namespaces, nodes and policies and
// the packet; the output is yes or no. It follows the API's documentation
// question by question, slowly, and refuses to share a line with the compiler
// it judges.
package policies

import (
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
)

// World is everything there is.
type World struct {
	Node       string
	Pods       []policy.Pod
	Namespaces []policy.Namespace
	Nodes      []policy.Node
	Policies   []policy.NetworkPolicy
	Cluster    []policy.ClusterPolicy
}

// Packet is forwarded by the node.
type Packet struct {
	Src, Dst netip.Addr
	Proto    service.Protocol
	Port     uint16
}

// Allowed answers for one packet.
func (w World) Allowed(p Packet) bool {
	if p.Src == p.Dst {
		return true
	}
	if src := w.podAt(p.Src); src != nil && src.Node == w.Node && !w.side(*src, false, p) {
		return false
	}
	dst := w.podAt(p.Dst)
	return dst == nil || dst.Node != w.Node || w.side(*dst, true, p)
}

// podAt is the pod that has an address; of several, the youngest.
func (w World) podAt(a netip.Addr) (found *policy.Pod) {
	for _, p := range w.Pods {
		if slices.Contains(p.Addresses, a) && (found == nil || !p.Created.Before(found.Created)) {
			found = &p
		}
	}
	return found
}

// side asks the policies of one pod.
func (w World) side(pod policy.Pod, ingress bool, p Packet) bool {
	switch w.tier(policy.Admin, pod, ingress, p) {
	case policy.Accept:
		return true
	case policy.Deny:
		return false
	}
	isolated, allowed := false, false
	for _, n := range w.Policies {
		rules := n.Egress
		if ingress {
			rules = n.Ingress
		}
		if n.Namespace != pod.Namespace || rules == nil || !holds(n.Pods, pod.Labels) {
			continue
		}
		isolated = true
		for _, r := range *rules {
			allowed = allowed || w.hits(r, n.Namespace, pod, ingress, p)
		}
	}
	if isolated {
		return allowed
	}
	return w.tier(policy.Baseline, pod, ingress, p) != policy.Deny
}

// tier is the action of the first rule that matches; "" if none does.
func (w World) tier(tier policy.Tier, pod policy.Pod, ingress bool, p Packet) policy.Action {
	list := slices.Clone(w.Cluster)
	slices.SortFunc(list, func(a, b policy.ClusterPolicy) int {
		if a.Priority != b.Priority {
			return a.Priority - b.Priority
		}
		return a.Key.Compare(b.Key)
	})
	for _, c := range list {
		if c.Unread != "" || c.Tier != tier || !holds(c.Namespaces, w.labelsOf(pod.Namespace)) || c.Pods != nil && !holds(*c.Pods, pod.Labels) {
			continue
		}
		rules := c.Egress
		if ingress {
			rules = c.Ingress
		}
		for _, r := range rules {
			known := r.Unread == "" && slices.Contains([]policy.Action{policy.Accept, policy.Deny, policy.Pass}, r.Action)
			switch {
			case !known && r.Action == policy.Accept:
				// Accepts nothing, lest it accept too much.
			case !known:
				return policy.Deny // everybody, lest it deny too little
			case w.hits(r.Rule, "", pod, ingress, p):
				return r.Action
			}
		}
	}
	return ""
}

// hits reports whether a rule matches.
func (w World) hits(r policy.Rule, namespace string, pod policy.Pod, ingress bool, p Packet) bool {
	other := p.Dst
	target := w.podAt(p.Dst)
	if ingress {
		other, target = p.Src, &pod
	}
	if r.Peers != nil && !slices.ContainsFunc(r.Peers, func(peer policy.Peer) bool {
		return w.isPeer(peer, namespace, other)
	}) {
		return false
	}
	return r.Ports == nil || slices.ContainsFunc(r.Ports, func(port policy.Port) bool { return isPort(port, target, p) })
}

func (w World) isPeer(peer policy.Peer, namespace string, a netip.Addr) bool {
	switch {
	case peer.Unknown:
		return false
	case peer.Block.IsValid():
		return within(peer.Block, a) && !slices.ContainsFunc(peer.Except, func(e netip.Prefix) bool { return within(e, a) })
	case peer.Nodes != nil:
		return slices.ContainsFunc(w.Nodes, func(n policy.Node) bool {
			return slices.Contains(n.Addresses, a) && holds(*peer.Nodes, n.Labels)
		})
	}
	pod := w.podAt(a)
	if pod == nil {
		return false
	}
	if peer.Namespaces == nil {
		if pod.Namespace != namespace {
			return false
		}
	} else if !holds(*peer.Namespaces, w.labelsOf(pod.Namespace)) {
		return false
	}
	return peer.Pods == nil || holds(*peer.Pods, pod.Labels)
}

// within: IPv4 addresses that are written as IPv6 are IPv4 all the same.
func within(b netip.Prefix, a netip.Addr) bool {
	if b.Addr().Is4In6() && b.Bits() >= 96 {
		b = netip.PrefixFrom(b.Addr().Unmap(), b.Bits()-96)
	}
	return b.Contains(a)
}

func isPort(port policy.Port, target *policy.Pod, p Packet) bool {
	if port.Protocol != 0 && port.Protocol != p.Proto {
		return false
	}
	if port.Name != "" {
		return target != nil && slices.Contains(target.Ports, policy.NamedPort{Name: port.Name, Protocol: p.Proto, Port: p.Port})
	}
	return port.First == 0 && port.Last == 0 || port.First <= p.Port && p.Port <= port.Last
}

func (w World) labelsOf(namespace string) map[string]string {
	for _, n := range w.Namespaces {
		if n.Name == namespace {
			return n.Labels
		}
	}
	return nil
}

func holds(s policy.Selector, labels map[string]string) bool {
	for _, r := range s {
		v, there := labels[r.Label]
		listed := there && slices.Contains(r.Values, v)
		switch r.Operator {
		case policy.In:
			if !listed {
				return false
			}
		case policy.NotIn:
			if listed || len(r.Values) == 0 {
				return false
			}
		case policy.Exists:
			if !there || len(r.Values) > 0 {
				return false
			}
		case policy.DoesNotExist:
			if there || len(r.Values) > 0 {
				return false
			}
		default:
			return false
		}
	}
	return true
}
