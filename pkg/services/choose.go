package services

import (
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/service"
)

// candidate is an endpoint at the number of one service port. Nobody writes to
// endpoints.
type candidate struct {
	*service.Endpoint
	addr netip.AddrPort
}

func (c candidate) on(node string) bool { return c.Node != "" && c.Node == node }

// choice is where a service port's connections may go.
type choice struct {
	// cluster is for traffic policy Cluster, local for Local.
	cluster, local []netip.AddrPort
	// anywhere tells whether any node has an endpoint for new connections.
	anywhere bool
	// healthy are the addresses of ready endpoints on this node.
	healthy map[netip.Addr]bool
}

// choose picks endpoints for one service port and family, out of candidates in
// the order of their addresses, which lists of endpoints keep. Terminating
// endpoints that still answer are the last resort: when not one is ready, in
// the cluster for one policy, on this node for the other.
func choose(node, zone string, candidates []candidate) choice {
	ready := make([]candidate, 0, len(candidates)) // most are
	var leaving, localReady, localLeaving []candidate
	healthy := map[netip.Addr]bool{}
	for _, c := range candidates {
		local := c.on(node)
		switch {
		case c.Ready:
			ready = append(ready, c)
			if local {
				localReady = append(localReady, c)
				healthy[c.Addr] = true
			}
		case c.Serving && c.Terminating:
			leaving = append(leaving, c)
			if local {
				localLeaving = append(localLeaving, c)
			}
		}
	}
	return choice{
		cluster:  addrs(firstOf(near(node, zone, ready), leaving)),
		local:    addrs(firstOf(localReady, localLeaving)),
		anywhere: len(ready)+len(leaving) > 0,
		healthy:  healthy,
	}
}

// near keeps the endpoints meant for this node, or else for this zone. Hints
// count only if every endpoint has one of the kind and at least one fits:
// half a set of hints means that their writer has not finished.
func near(node, zone string, ready []candidate) []candidate {
	if list := hinted(ready, node, func(c candidate) []string { return c.ForNodes }); list != nil {
		return list
	}
	if list := hinted(ready, zone, func(c candidate) []string { return c.ForZones }); list != nil {
		return list
	}
	return ready
}

func hinted(ready []candidate, here string, hints func(candidate) []string) (list []candidate) {
	for _, c := range ready {
		h := hints(c)
		if len(h) == 0 {
			return nil
		}
		if here != "" && slices.Contains(h, here) {
			list = append(list, c)
		}
	}
	return list
}

func firstOf(lists ...[]candidate) []candidate {
	for _, l := range lists {
		if len(l) > 0 {
			return l
		}
	}
	return nil
}

func addrs(list []candidate) []netip.AddrPort {
	out := make([]netip.AddrPort, 0, len(list))
	for _, c := range list {
		out = append(out, c.addr)
	}
	return out
}

// inOrder sorts candidates by address. Of several at one, the best stays, or
// the first.
func inOrder(list []candidate) []candidate {
	slices.SortStableFunc(list, func(a, b candidate) int { return a.addr.Compare(b.addr) })
	out := list[:0]
	for _, c := range list {
		switch last := len(out) - 1; {
		case last < 0 || out[last].addr != c.addr:
			out = append(out, c)
		case better(c.Endpoint, out[last].Endpoint):
			out[last] = c
		}
	}
	return out
}

// better reports whether a should stand where two slices have the same
// address and port: a new pod can get the address of one that is still
// terminating.
func better(a, b *service.Endpoint) bool {
	if a.Terminating != b.Terminating {
		return b.Terminating
	}
	if a.Ready != b.Ready {
		return a.Ready
	}
	return a.Serving && !b.Serving
}
