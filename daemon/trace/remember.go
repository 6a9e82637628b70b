package trace

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"poplin.dev/poplin/daemon/trace/objects"
	"poplin.dev/poplin/daemon/trace/should"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/trace/way"
)

// remember goes on without the API server, from what this node knows. why is
// what asking it came to.
func (g *gatherer) remember(why error) error {
	f := g.conf.Local(facts.Question{Kinds: []facts.Kind{facts.OfCluster, facts.OfDaemon}})
	c := f.Cluster
	if c == nil || len(c.Nodes) == 0 {
		return fmt.Errorf("%w; and node %s knows nothing of the cluster: %s", why, g.conf.LocalName, f.Missing[string(facts.OfCluster)])
	}
	if c.Missing["policy"] != "" { // pods come from the runtime then
		f.Pods = g.conf.Local(facts.Question{Kinds: []facts.Kind{facts.OfPods}}).Pods
	}
	g.in.Memory = &way.Memory{Node: g.conf.LocalName, Since: c.Since, Why: why.Error()}
	g.objects = objects.Remember(f)
	g.in.Objects.Networks = c.Nodes
	for _, n := range c.Nodes {
		g.in.Objects.Nodes = append(g.in.Objects.Nodes, toNode(n, c.Self))
	}
	var err error
	if g.in.Objects.DNS, g.in.Objects.DNSSlices, err = g.objects.NameServer(context.Background()); err != nil {
		g.in.Objects.DNS = nil // the hop is unknown then
	}
	g.compiled = func(context.Context) should.Objects {
		parts := map[service.Key][]service.Slice{}
		for _, s := range c.Slices {
			k := service.Key{Namespace: s.Namespace, Name: s.Service}
			parts[k] = append(parts[k], s)
		}
		return should.Objects{
			Objects: g.in.Objects, Services: c.Services, Ranges: c.Ranges, Policies: c.Policy, Missing: c.Missing,
			Slices: func(k service.Key) []service.Slice { return parts[k] },
		}
	}
	return nil
}

// toNode is a Node as others know it: by the address that it has published.
func toNode(n cluster.Node, self cluster.Self) (o object.Node) {
	o.Name = n.Name
	o.Spec.PodCIDRs = n.PodCIDRs
	o.SetAddresses(n.VTEP.Addr)
	if n.Name == self.Name {
		o.SetAddresses(self.Addresses...)
		o.Labels = map[string]string{"topology.kubernetes.io/zone": self.Zone}
	}
	return o
}

// daemon is the pod to ask of a node.
func (g *gatherer) daemon(node string) (pod string, err error) {
	if m := g.in.Memory; m != nil {
		return "", fmt.Errorf("other nodes than %s are asked through the API server, which is away", m.Node)
	}
	if pod = g.daemons[node]; pod == "" {
		return "", errors.New("no pod of poplind runs there")
	}
	return pod, nil
}

// absent says that there is no such object, or that nobody knows.
func (g *gatherer) absent(kind string, n name) error {
	if m := g.in.Memory; m != nil {
		return fmt.Errorf("node %s knows no %s %s, and the API server is away: %s", m.Node, kind, n.key(), m.Why)
	}
	return fmt.Errorf("there is no %s %s", kind, n.key())
}

// stranger has an address of a node's pod range be some pod's.
func (g *gatherer) stranger(t *way.Target, a netip.Addr) {
	g.in.Objects.Pods = append(g.in.Objects.Pods, objects.Stranger(a, objects.NodeFor(g.in.Objects.Networks, a)))
	t.Pod = &g.in.Objects.Pods[len(g.in.Objects.Pods)-1]
}
