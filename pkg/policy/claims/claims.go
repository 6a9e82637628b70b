// Package claims holds the addresses that pods of one node were given, ahead
// of the API server, which hears of them when the pods run. Inputs are claims,
// as the CNI plugin makes them, and pods as the API server has them; outputs
// are pods with both kinds of addresses, and word that a claim is in force. It
// refuses to mistake a pod for its successor of the same name.
//
// A claim ends with its pod, with its pod's next sandbox, or when the address
// is given to another: IPAM gives none twice. That the pod's status has the
// address does not end it, since a status can be late again.
package claims

import (
	"slices"
	"time"

	"net/netip"

	"poplin.dev/poplin/pkg/cluster/policy"
)

// Claim is one pod's.
type Claim struct {
	Pod policy.Key
	// UID tells pods of one name apart; empty where it is not known.
	UID string
	// Sandbox is what the addresses are on.
	Sandbox   string
	Addresses []netip.Addr
	// At is when they were given.
	At time.Time
	// InForce, if not nil, is called when the kernel holds what policies say
	// of the pod.
	InForce func()
}

// List is all of a node.
type List struct {
	node   string
	claims map[policy.Key]*entry
}

type entry struct {
	Claim
	// met: the API server's pod has been seen, and got these addresses.
	met bool
	// waiting are to be called.
	waiting []func()
}

// NewList is the empty list of a node.
func NewList(node string) *List { return &List{node, map[policy.Key]*entry{}} }

// Enter takes over a claim and returns the pods whose addresses are others now.
func (l *List) Enter(c Claim) []policy.Key {
	next := &entry{Claim: c}
	if c.InForce != nil {
		next.waiting = append(next.waiting, c.InForce)
	}
	// Two interfaces of a sandbox make two claims.
	if old := l.claims[c.Pod]; old != nil && old.UID == c.UID && old.Sandbox == c.Sandbox {
		next.Addresses = union(old.Addresses, c.Addresses)
		next.waiting = append(old.waiting, next.waiting...)
	}
	l.claims[c.Pod] = next
	changed := []policy.Key{c.Pod}
	for k, o := range l.claims {
		rest := slices.DeleteFunc(slices.Clone(o.Addresses), func(a netip.Addr) bool { return slices.Contains(c.Addresses, a) })
		if o == next || len(rest) == len(o.Addresses) {
			continue
		}
		changed = append(changed, k)
		if o.Addresses = rest; len(rest) == 0 {
			delete(l.claims, k)
		}
	}
	return changed
}

// Of returns a pod with the addresses that it claims beside those that it has.
func (l *List) Of(p policy.Pod) policy.Pod {
	c := l.claims[p.Key]
	switch {
	case c == nil || p.Node != l.node:
		return p
	case c.UID != "" && c.UID != p.UID:
		if c.met { // this one came after it
			delete(l.claims, p.Key)
		}
		return p
	}
	c.met = true
	// Of two pods with one address, it is the one's that was given it last.
	p.Addresses, p.Created = union(p.Addresses, c.Addresses), c.At
	return p
}

// Gone says that the API server has no such pod. One that it does not have yet
// keeps its claim.
func (l *List) Gone(k policy.Key) {
	if c := l.claims[k]; c != nil && c.met {
		delete(l.claims, k)
	}
}

// InForce says that the kernel holds all that Of has returned. Policies may
// select pods by their namespace, so that must be known as well.
func (l *List) InForce(known func(namespace string) bool) {
	for _, c := range l.claims {
		if !c.met || len(c.waiting) == 0 || !known(c.Pod.Namespace) {
			continue
		}
		for _, tell := range c.waiting {
			tell()
		}
		c.waiting = nil
	}
}

func union(a, b []netip.Addr) []netip.Addr {
	all := slices.Clone(a)
	for _, x := range b {
		if !slices.Contains(all, x) {
			all = append(all, x)
		}
	}
	return all
}
