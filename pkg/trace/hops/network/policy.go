package network

import (
	"fmt"
	"net/netip"
	"strings"

	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/pkg/trace"
	"poplin.dev/poplin/pkg/trace/way"
)

// PolicyEgress: the sender's policies let it out. They are enforced on its node.
func PolicyEgress(c *way.Case) []way.Hop {
	if c.Src.Pod == nil || c.Origin != trace.FromPod {
		return nil
	}
	return []way.Hop{policy(c, way.PolicyEgress, c.Enters, c.Src.Pod.String(), c.From)}
}

// PolicyIngress: the receiver's let it in.
func PolicyIngress(c *way.Case) []way.Hop {
	if c.Pod == nil || c.Origin == trace.FromNode && c.Enters == c.Node {
		return nil
	}
	return []way.Hop{policy(c, way.PolicyIngress, c.Node, c.Pod.String(), c.Seen())}
}

func policy(c *way.Case, class way.Class, node, pod string, src netip.Addr) way.Hop {
	h, f := c.At(class, node, "pod "+pod)
	switch {
	case f == nil:
		return *h
	case class == way.PolicyEgress && stays(f, c.Dst.Addr()):
		h.Saw("%s is the node's own: no policy keeps a pod from its own node", c.Dst.Addr())
		return *h
	case f.Daemon != nil && f.Daemon.Running && !f.Daemon.Settings.Policy:
		h.Unknown("policy.enabled is false: another program enforces policies on this node, or none does")
		return *h
	case f.Rules == nil || f.Missing["rules.policy"] != "":
		h.Unknown("%s", f.Missing["rules.policy"])
		return *h
	}
	now := judge(c, class, f.Rules.Policy.Program, src)
	should := judge(c, class, c.Desired[node].Policy, src)
	if why := c.Desired[node].Lacks["policy"]; why != "" {
		h.Saw("what should be there is not known: %s", why)
		should = now
	}
	for _, s := range now.Steps {
		h.Saw("%s", s)
	}
	rule := rule(c, class, node, src)
	switch {
	case now.Action == trace.Drop && should.Action == trace.Drop:
		h.Broken(fmt.Sprintf("kubectl -n %s describe networkpolicies", namespaceOf(pod)), "%s, for %s from %s to %s%s",
			rule, c.Proto, src, c.Dst, dnsHint(class, c))
	case now.Action == trace.Drop:
		h.Broken(way.Restart(node), "the kernel of node %s drops it, and no policy wants that", node)
	case should.Action == trace.Drop:
		h.Suspect(way.Restart(node), "%s, and the kernel of node %s lets it pass", rule, node)
	case len(f.Rules.Policy.Wrong) > 0:
		h.Suspect(way.Restart(node), "nftables table inet poplin-policy is not as it should be: %s", f.Rules.Policy.Wrong[0])
	}
	return *h
}

// stays says that a node has an address itself, on whatever device.
func stays(f *facts.Node, a netip.Addr) bool {
	if f.Network == nil {
		return false
	}
	_, own := f.Network.Holder(a)
	return own
}

// judge asks one direction only.
func judge(c *way.Case, class way.Class, p permit.Program, src netip.Addr) trace.Verdict {
	if class == way.PolicyEgress {
		p.Receivers = nil
	} else {
		p.Senders = nil
	}
	return trace.Policy(p, trace.Packet{Origin: trace.FromPod, Src: src, Dst: c.Dst, Proto: c.Proto})
}

// rule names the policies that decide.
func rule(c *way.Case, class way.Class, node string, src netip.Addr) string {
	if explain := c.Desired[node].Explain; explain != nil {
		if text := explain(class == way.PolicyEgress, src, c.Dst, c.Proto); text != "" {
			return text
		}
	}
	return "a policy denies it"
}

func namespaceOf(pod string) string {
	ns, _, _ := strings.Cut(pod, "/")
	return ns
}

func dnsHint(class way.Class, c *way.Case) string {
	if class == way.PolicyEgress && c.Dst.Port() == 53 {
		return " (name servers need a rule of their own)"
	}
	return ""
}
