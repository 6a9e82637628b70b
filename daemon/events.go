package daemon

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"poplin.dev/poplin/daemon/conflist"
	"poplin.dev/poplin/daemon/overlay"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/reason"
)

// sentence is what the owner of an object must know. It is said as long as it
// is true, so it names nothing that changes all the time.
type sentence struct {
	about   cluster.Reference
	reason  reason.Reason
	message string
}

// tell says them, as Events; those that were said are not said again.
func (s *state) tell(list []sentence) {
	for _, x := range list {
		if x.about.Name != "" {
			s.cluster.Event(x.about, x.reason, x.message)
		}
	}
}

// late is how long a new Node may be without a range before anybody need know.
const late = 30 * time.Second

// aboutFabric is what a pass over the kernel found, running being how long the
// daemon has.
func aboutFabric(o overlay.State, skipped map[string]string, running time.Duration) []sentence {
	self := cluster.NodeReference(o.Self.Name, o.Self.UID)
	var list []sentence
	say := func(when bool, about cluster.Reference, why reason.Reason, format string, args ...any) {
		if when {
			list = append(list, sentence{about, why, fmt.Sprintf(format, args...)})
		}
	}
	say(len(o.Self.PodCIDRs) == 0 && running > late, self, reason.PodCIDRMissing,
		"pods cannot start: the Node has no spec.podCIDRs, which kube-controller-manager sets with --allocate-node-cidrs and --cluster-cidr, unless the cluster's range is used up")
	say(o.Contested, self, reason.NodeRefused, "the other nodes do not send to this one, and no more pods start: %s", o.Unfit)
	say(len(o.Strays) > 0, self, reason.PodCIDRChanged,
		"pods have addresses of %v, but the node's ranges are %v now: delete these pods, or drain the node", o.Self.Former, o.Self.PodCIDRs)
	say(len(o.Blocking) > 0, self, reason.ForeignFirewall,
		"another program's firewall drops what is forwarded, also to and from pods: let the pods' ranges pass in %s", strings.Join(o.Blocking, ", "))
	say(o.LargePods > 0, self, reason.PodMTUTooLarge,
		"pods have links with a larger MTU than the overlay's %d: restart those that stall", o.MTU)
	say(o.Checksums.Faulty, self, reason.ChecksumFault,
		"the network card spoils checksums of encapsulated packets, so the CPU fills them in, which costs throughput: %s", o.Checksums.Why)
	for _, r := range o.Refused {
		say(true, cluster.NodeReference(r.Node, ""), reason.PeerRefused, "other nodes do not send to this one: %s", r.Reason)
	}
	for _, name := range slices.Sorted(maps.Keys(skipped)) {
		say(true, cluster.NodeReference(name, ""), reason.PeerRefused, "other nodes do not send to this one: its NodeNetwork is not understood: %s", skipped[name])
	}
	return list
}

func aboutConflist(self cluster.Self, c conflist.State) []sentence {
	if len(c.Preferred) == 0 {
		return nil
	}
	return []sentence{{cluster.NodeReference(self.Name, self.UID), reason.ConflistShadowed, fmt.Sprintf(
		"the container runtime prefers %s to Poplin's %s: unless it delegates to Poplin, remove it, or rename it so that it sorts later",
		strings.Join(c.Preferred, ", "), conflist.File)}}
}

func aboutConfig(self cluster.Self, err error) []sentence {
	if err == nil {
		return nil
	}
	return []sentence{{cluster.NodeReference(self.Name, self.UID), reason.ConfigInvalid,
		"poplind's configuration cannot be used, the last good one stays in force: " + err.Error()}}
}
