package services

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/vip"
)

// compiler compiles one Service.
type compiler struct {
	node *Node
	plan *plan
	// candidates of every service port and family.
	candidates map[portKey][]candidate
}

type portKey struct {
	name  string
	proto service.Protocol
	ipv6  bool
}

// compile says what a Service wants of this node.
func compile(node *Node, s service.Service, list []service.Slice) *plan {
	c := &compiler{
		node: node,
		plan: &plan{
			service:  s,
			groups:   map[groupKey][]netip.AddrPort{},
			entries:  map[vip.Front]entry{},
			hairpins: map[netip.Addr]struct{}{},
			serving:  map[string]map[netip.AddrPort]bool{},
		},
	}
	if skipped(s) {
		return c.plan
	}
	c.collect(list)
	healthy := [2]map[netip.Addr]bool{{}, {}} // per family: a pod has an address in each
	for _, p := range s.Ports {
		if p.Port == 0 || !known(p.Protocol) {
			c.find(reason.BadPort, "port %q: %s port %d cannot be served, only TCP, UDP and SCTP ports from 1 on", p.Name, p.Protocol, p.Port)
			continue
		}
		maps.Copy(healthy[0], c.port(p, false))
		maps.Copy(healthy[1], c.port(p, true))
	}
	slices.SortFunc(c.plan.findings, func(a, b Finding) int {
		return cmp.Or(a.Object.Compare(b.Object), cmp.Compare(a.Message, b.Message))
	})
	c.plan.findings = slices.Compact(c.plan.findings) // ports share addresses
	if s.HealthCheckNodePort != 0 && s.Type == service.LoadBalancer && s.ExternalLocal {
		c.plan.health = &Health{Port: s.HealthCheckNodePort, Endpoints: max(len(healthy[0]), len(healthy[1]))}
	}
	return c.plan
}

// collect sorts the slices' endpoints by the service port they belong to.
func (c *compiler) collect(list []service.Slice) {
	c.candidates = map[portKey][]candidate{}
	list = slices.SortedFunc(slices.Values(list), func(a, b service.Slice) int { return a.Key.Compare(b.Key) })
	for i := range list {
		slice := &list[i]
		if slice.Family != 4 && slice.Family != 6 {
			continue // names, not addresses: nothing a packet could go to
		}
		for _, p := range slice.Ports {
			if p.Port == 0 {
				c.findIn(slice, reason.BadEndpoint, "port %q: number 0 is no port, left out", p.Name)
				continue
			}
			key := portKey{p.Name, p.Protocol, slice.Family == 6}
			candidates := slices.Grow(c.candidates[key], len(slice.Endpoints))
			for j := range slice.Endpoints {
				if e := &slice.Endpoints[j]; c.accepts(slice, p, e) {
					candidates = append(candidates, candidate{e, netip.AddrPortFrom(e.Addr, p.Port)})
				}
			}
			c.candidates[key] = candidates
		}
	}
	for key, candidates := range c.candidates {
		c.candidates[key] = inOrder(candidates)
	}
}

// accepts refuses endpoints to which nothing must be sent.
func (c *compiler) accepts(slice *service.Slice, p service.SlicePort, e *service.Endpoint) bool {
	switch {
	case !usable(e.Addr):
		c.findIn(slice, reason.BadEndpoint, "endpoint %q is no address of a pod or host, left out", e.Addr)
	case e.Addr.Is6() != (slice.Family == 6):
		c.findIn(slice, reason.BadEndpoint, "endpoint %s is not of the slice's address type IPv%d, left out", e.Addr, slice.Family)
	case c.forged(e.Addr, p.Protocol, p.Port):
		c.findIn(slice, reason.BadEndpoint, "endpoint %s: UDP port %d of a node is the overlay's, left out", e.Addr, p.Port)
	default:
		return true
	}
	return false
}

func (c *compiler) forged(a netip.Addr, proto service.Protocol, port uint16) bool {
	return proto == service.UDP && port == c.node.OverlayPort && c.node.IsNodeAddress(a)
}

// port compiles one service port for one family, and returns its healthy
// addresses on this node.
func (c *compiler) port(p service.Port, ipv6 bool) map[netip.Addr]bool {
	s := &c.plan.service
	chosen := choose(c.node.Name, c.node.Zone, c.candidates[portKey{p.Name, p.Protocol, ipv6}])
	all := c.target(p, ipv6, false, chosen.cluster, vip.Refuse)
	local := all
	if s.InternalLocal || s.ExternalLocal {
		none := vip.Refuse
		if chosen.anywhere {
			none = vip.Drop
		}
		local = c.target(p, ipv6, true, chosen.local, none)
		if local.refusal == vip.Drop {
			c.plan.starved.add(Starved{rank(s.InternalLocal), rank(s.ExternalLocal)}, 1)
		}
	}
	internal := entry{inside: all, timeout: seconds(s.Affinity)}
	if s.InternalLocal {
		internal.inside = local
	}
	external := entry{inside: all, timeout: internal.timeout}
	if s.ExternalLocal {
		external.outside, external.override = local, true
	} else {
		external.inside.masquerade = true
	}
	c.fronts(p, ipv6, internal, external)
	if p.Protocol == service.UDP {
		c.serve(p, ipv6)
	}
	return chosen.healthy
}

func known(p service.Protocol) bool {
	return p == service.TCP || p == service.UDP || p == service.SCTP
}

// seconds rounds up: 0 would mean for ever.
func seconds(d time.Duration) uint32 { return uint32((d + time.Second - 1) / time.Second) }

// serve notes where flows without connections may go on.
func (c *compiler) serve(p service.Port, ipv6 bool) {
	if c.plan.serving[p.Name] == nil {
		c.plan.serving[p.Name] = map[netip.AddrPort]bool{}
	}
	for _, k := range c.candidates[portKey{p.Name, p.Protocol, ipv6}] {
		if k.Ready || k.Serving {
			c.plan.serving[p.Name][k.addr] = true
		}
	}
}

// target is a list of endpoints, or what to do without any.
func (c *compiler) target(p service.Port, ipv6, local bool, list []netip.AddrPort, none vip.Value) target {
	if len(list) == 0 {
		return target{refusal: none}
	}
	s := &c.plan.service
	if len(list) > vip.MaxEndpoints {
		c.find(reason.TooManyEndpoints, "port %q has %d endpoints, this node uses %d of them", p.Name, len(list), vip.MaxEndpoints)
		list = c.some(list)
	}
	key := groupKey{s.Key, p.Name, p.Protocol, ipv6, local, s.Affinity > 0}
	c.plan.groups[key] = list
	for _, k := range c.candidates[portKey{p.Name, p.Protocol, ipv6}] {
		if !k.on(c.node.Name) {
			continue
		}
		if _, used := slices.BinarySearchFunc(list, k.addr, netip.AddrPort.Compare); used {
			c.plan.hairpins[k.Addr] = struct{}{}
		}
	}
	return target{group: key}
}

// some keeps as many endpoints as a group can hold. Each node keeps others,
// so that all of them are used.
func (c *compiler) some(list []netip.AddrPort) []netip.AddrPort {
	type ranked struct {
		rank uint64
		addr netip.AddrPort
	}
	all := make([]ranked, len(list))
	for i, a := range list {
		sum := sha256.Sum256(append([]byte(c.node.Name), a.Addr().AsSlice()...))
		all[i] = ranked{binary.BigEndian.Uint64(sum[:]), a}
	}
	slices.SortFunc(all, func(a, b ranked) int { return cmp.Or(cmp.Compare(a.rank, b.rank), a.addr.Compare(b.addr)) })
	out := make([]netip.AddrPort, vip.MaxEndpoints)
	for i := range out {
		out[i] = all[i].addr
	}
	slices.SortFunc(out, netip.AddrPort.Compare)
	return out
}

func (c *compiler) find(why reason.Reason, format string, args ...any) {
	c.plan.findings = append(c.plan.findings, Finding{Object: c.plan.service.Key, Reason: why, Message: fmt.Sprintf(format, args...)})
}

func (c *compiler) findIn(slice *service.Slice, why reason.Reason, format string, args ...any) {
	c.plan.findings = append(c.plan.findings, Finding{Object: slice.Key, Slice: true, Reason: why, Message: fmt.Sprintf(format, args...)})
}
