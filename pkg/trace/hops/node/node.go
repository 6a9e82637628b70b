// Package node looks at nodes and their daemons: whether they run, and whether
// pods of them have addresses. Inputs are what is known, or one case of it;
// outputs are hops. It refuses to call a daemon that is away a broken hop while
// what it programmed is in place.
package node

import (
	"fmt"
	"slices"

	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/trace/way"
)

// Up: those on the way run, and so do their daemons. What a daemon put into
// the kernel works without it, so that one is away is suspect, not broken.
func Up(c *way.Case) (hops []way.Hop) {
	for _, name := range way.Involved([]way.Case{*c}) {
		n := way.Hop{Hop: way.Node, Node: name, About: "node " + name}
		o, found := c.Objects.Node(name)
		_, answered := c.Facts[name]
		switch {
		case c.Memory != nil && answered: // what its kubelet says nobody knows
			n.Saw("it answers")
		case c.Memory != nil:
			n.Unknown("whether it is ready is not known: the API server is away")
		case !found && len(c.Objects.Nodes) > 0:
			n.Broken("kubectl get nodes", "there is no Node of this name")
		case found && !o.Ready() && !answered:
			n.Broken("kubectl describe node "+name, "it is not ready, and does not answer: %s", o.Why())
		case found && !o.Ready():
			n.Suspect("kubectl describe node "+name, "it is not ready: %s", o.Why())
		}
		if _, published := c.Objects.Network(name); !published && c.Remote() {
			n.Broken(way.Logs(name), "it has no NodeNetwork, which its daemon publishes: other nodes forget the way to it")
		}
		d, f := c.At(way.Daemon, name, "poplind")
		switch {
		case f == nil:
		case f.Daemon == nil:
			d.Unknown("%s", f.Missing["daemon"])
		case !f.Daemon.Running:
			d.Suspect(way.Logs(name), "it does not answer: %s; what is in the kernel stays as it was", f.Daemon.Problem)
		case !f.Daemon.Ready:
			d.Suspect(way.Logs(name), "it is not ready: %s", firstOf(f.Daemon.Waiting))
		default:
			d.Saw("version %s, ready", f.Daemon.Version)
		}
		hops = append(hops, n, *d)
	}
	return hops
}

func firstOf(m map[string]string) string {
	names := make([]string, 0, len(m))
	for k := range m {
		names = append(names, k)
	}
	if len(names) == 0 {
		return "it does not say why"
	}
	slices.Sort(names)
	return names[0] + " waits for " + m[names[0]]
}

// Blame makes a daemon that is away the broken hop where its node lacks what
// nobody else may write: elements of tables of which the daemon is the owner.
func Blame(hops []way.Hop) {
	for i := range hops {
		d := &hops[i]
		if d.Hop != way.Daemon || d.Status != way.Suspect {
			continue
		}
		for j, h := range hops {
			owned := h.Hop == way.ServiceProgram || h.Hop == way.PolicyEgress || h.Hop == way.PolicyIngress
			if h.Node == d.Node && h.Status == way.Broken && owned && h.Cure == way.Restart(h.Node) {
				d.Broken(d.Cure, "%s; so %s", d.Cause, h.Cause)
				hops[j].Status = way.Suspect
			}
		}
	}
}

// Addressed: both ends have addresses.
func Addressed(in *way.Input) (hops []way.Hop) {
	var pods []*object.Pod
	for _, p := range []*object.Pod{in.From.Pod, in.To.Pod} {
		if p != nil {
			pods = append(pods, p)
		}
	}
	if in.To.Service != nil {
		for _, p := range in.Selected(in.To.Service) {
			pods = append(pods, &p)
		}
	}
	for _, p := range pods {
		switch {
		case len(p.Addresses()) > 0 || p.Ended():
		case p.Spec.NodeName == "":
			h := way.Hop{Hop: way.Node, About: "pod " + p.String()}
			h.Broken(fmt.Sprintf("kubectl -n %s describe pod %s", p.Namespace, p.Name), "no node has taken pod %s", p)
			hops = append(hops, h)
		default:
			hops = append(hops, unaddressed(in, p))
		}
	}
	return hops
}

// unaddressed says why a pod has no address.
func unaddressed(in *way.Input, p *object.Pod) way.Hop {
	c := &way.Case{Input: in}
	h, f := c.At(way.AddressRange, p.Spec.NodeName, "pod "+p.String())
	if f == nil || f.Daemon == nil {
		h.Unknown("the pod has no address, and nothing is known of its node")
		return *h
	}
	for _, r := range f.Daemon.Ranges {
		h.Saw("range %s: %d taken, %s free", r.Range, r.Taken, r.Free)
		if r.Free == "0" {
			h.Broken("poplinctl ipam show # on node "+p.Spec.NodeName, "range %s of node %s is full: pod %s gets no address", r.Range, p.Spec.NodeName, p)
			return *h
		}
	}
	if !f.Daemon.Running || !f.Daemon.Ready {
		h.Hop = way.Daemon
		why := f.Daemon.Problem
		if f.Daemon.Running {
			why = firstOf(f.Daemon.Waiting)
		}
		h.Broken(way.Logs(p.Spec.NodeName), "pod %s has no address, and poplind of its node is not ready: %s", p, why)
		return *h
	}
	h.Broken(fmt.Sprintf("kubectl -n %s describe pod %s", p.Namespace, p.Name), "pod %s has no address yet", p)
	return *h
}
