package policies_test

import (
	"fmt"
	"net/netip"

	"poplin.dev/poplin/pkg/cluster/policy"
	policycompiler "poplin.dev/poplin/pkg/policy"
	"poplin.dev/poplin/pkg/policy/verdict"
	"poplin.dev/poplin/test/oracle/policies"
)

// unexplained describes what is wrong with the explanation of a packet: the
// ends together must say what the oracle says of the world, and each named
// rule must do what is said of it in a world where it is the only one.
func (r *run) unexplained(w policies.World, p policies.Packet) string {
	allowed := true
	for _, d := range r.table.Explain(policycompiler.Packet{Src: p.Src, Dst: netip.AddrPortFrom(p.Dst, p.Port), Proto: p.Proto}) {
		allowed = allowed && d.Allowed
		alone := w
		alone.Cluster, alone.Policies = nil, nil
		switch {
		case d.By == nil && d.Tier == verdict.None:
			if !d.Allowed {
				return fmt.Sprintf("%s, though nobody says so", d)
			}
			continue
		case d.By == nil:
			for _, s := range d.Isolating {
				n, found := r.policies[policy.Key{Namespace: s.Namespace, Name: s.Name}]
				if !found {
					return fmt.Sprintf("%s: there is no %s", d, s)
				}
				alone.Policies = append(alone.Policies, oneWay(n, d.Direction))
			}
			if len(d.Isolating) == 0 {
				return fmt.Sprintf("%s: by no policy", d)
			}
		case d.Tier == verdict.Network:
			n := oneWay(r.policies[policy.Key{Namespace: d.By.Namespace, Name: d.By.Name}], d.Direction)
			for _, rules := range []**policy.Rules{&n.Ingress, &n.Egress} {
				if *rules != nil {
					*rules = &policy.Rules{(**rules)[index(d)]}
				}
			}
			alone.Policies = []policy.NetworkPolicy{n}
		default:
			c := r.cluster[policy.Key{Name: d.By.Name}]
			c.Tier = policy.Admin
			denyAll := policy.ClusterRule{Action: policy.Deny}
			if d.Direction == verdict.Ingress {
				c.Ingress, c.Egress = []policy.ClusterRule{c.Ingress[index(d)], denyAll}, nil
			} else {
				c.Ingress, c.Egress = nil, []policy.ClusterRule{c.Egress[index(d)], denyAll}
			}
			if !d.Allowed { // the last one must not be why
				c.Ingress, c.Egress = c.Ingress[:min(1, len(c.Ingress))], c.Egress[:min(1, len(c.Egress))]
			}
			alone.Cluster = []policy.ClusterPolicy{c}
		}
		if alone.Allowed(p) != d.Allowed {
			return fmt.Sprintf("%s, which alone does something else", d)
		}
	}
	if want := w.Allowed(p); allowed != want {
		return fmt.Sprintf("the explanation says allowed=%v, the oracle %v", allowed, want)
	}
	return ""
}

// oneWay is a policy without the rules of the other direction.
func oneWay(n policy.NetworkPolicy, d verdict.Direction) policy.NetworkPolicy {
	if d == verdict.Ingress {
		n.Egress = nil
	} else {
		n.Ingress = nil
	}
	return n
}

// index is that of the rule that decides.
func index(d verdict.Decision) (i int) {
	for i = range 64 {
		if d.By.Field == fmt.Sprintf("spec.%s[%d]", d.Direction, i) {
			return i
		}
	}
	panic("no rule has the field " + d.By.Field)
}
