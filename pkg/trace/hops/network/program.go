package network

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/program/vip"
	"poplin.dev/poplin/pkg/trace"
	"poplin.dev/poplin/pkg/trace/way"
)

// ServiceProgram: the kernel of the node where the packet enters sends it to
// the endpoints to which it should.
func ServiceProgram(c *way.Case) []way.Hop {
	if !c.Served() {
		return nil
	}
	h, f := c.At(way.ServiceProgram, c.Enters, c.Front.String()+"/"+c.Proto.String())
	switch {
	case f == nil:
	case f.Daemon != nil && f.Daemon.Running && !f.Daemon.Settings.Services:
		h.Unknown("services.enabled is false: another program serves Services on this node")
	case f.Rules == nil || f.Missing["rules.services"] != "":
		h.Unknown("%s", f.Missing["rules.services"])
	case len(f.Rules.Services.Wrong) > 0:
		h.Broken(way.Restart(c.Enters), "nftables table inet poplin-services is not as it should be: %s", f.Rules.Services.Wrong[0])
	default:
		compareServices(c, h, f)
	}
	return []way.Hop{*h}
}

func compareServices(c *way.Case, h *way.Hop, f *facts.Node) {
	packet := trace.Packet{Origin: c.Origin, Src: c.Source(), Dst: c.Front, Proto: c.Proto}
	own := addressesOf(f)
	now, should := trace.Service(f.Rules.Services.Program, own, packet), trace.Service(c.Desired[c.Enters].Services, own, packet)
	if why := c.Desired[c.Enters].Lacks["services"]; why != "" {
		h.Saw("what should be there is not known: %s", why)
		should = now
	}
	for _, s := range now.Steps {
		h.Saw("%s", s)
	}
	if why := before(c, f, "dnat"); why != "" {
		h.Broken("nft list ruleset # on node "+c.Enters, "%s, of another program, translates it first", why)
	}
	switch {
	case !same(now, should):
		h.Broken(way.Restart(c.Enters), "the kernel of node %s would %s, and should %s", c.Enters, fate(now), fate(should))
	case now.Action == trace.Pass:
		h.Broken("kubectl get services -A -o wide", "no Service answers at %s on node %s", c.Front, c.Enters)
	case now.Action != trace.Forward:
		h.Broken("kubectl -n "+c.To.Service.Namespace+" get service "+c.To.Service.Name+" -o yaml", "the Service refuses it: %s", last(now.Steps))
	}
}

func last(steps []string) string {
	if len(steps) == 0 {
		return ""
	}
	return steps[len(steps)-1]
}

func addressesOf(f *facts.Node) (list []netip.Addr) {
	if f.Network == nil {
		return nil
	}
	for _, l := range f.Network.Links {
		for _, p := range l.Addresses {
			list = append(list, p.Addr())
		}
	}
	return list
}

func same(a, b trace.Verdict) bool {
	key := func(v trace.Verdict) []trace.Endpoint {
		list := slices.Clone(v.Endpoints)
		slices.SortFunc(list, func(a, b trace.Endpoint) int { return a.Addr.Compare(b.Addr) })
		return list
	}
	return a.Action == b.Action && a.Sticky == b.Sticky && slices.Equal(key(a), key(b))
}

func fate(v trace.Verdict) string {
	if v.Action != trace.Forward {
		return v.Action.String()
	}
	list := make([]string, len(v.Endpoints))
	for i, e := range v.Endpoints {
		list[i] = e.Addr.String()
	}
	slices.Sort(list)
	return "forward to " + strings.Join(list, ", ")
}

// nearlyFull is where connection tracking is close to dropping packets.
const nearlyFull = 95

// Conntrack: there is room for one more entry, and no old one leads elsewhere.
func Conntrack(c *way.Case) (hops []way.Hop) {
	for _, node := range way.Involved([]way.Case{*c}) {
		h, f := c.At(way.Conntrack, node, "connection tracking")
		switch {
		case f == nil:
		case f.Flows == nil:
			h.Unknown("%s", f.Missing["flows"])
		default:
			h.Saw("%d of %d entries", f.Flows.Count, f.Flows.Max)
			if m := f.Flows.Max; m > 0 && f.Flows.Count >= m {
				h.Broken(fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d # on node %s", 2*m, node), "the table is full: %d entries", m)
			} else if m > 0 && f.Flows.Count*100 >= m*nearlyFull {
				h.Suspect(fmt.Sprintf("sysctl -w net.netfilter.nf_conntrack_max=%d # on node %s", 2*m, node), "%d of %d entries are used", f.Flows.Count, m)
			}
			if c.Served() && node == c.Enters && f.Rules != nil {
				switch why := before(c, f, "notrack"); {
				case why == "":
				case instead(c, f):
					h.Saw("a process of node %s answers at %s in the Service's place: %s", node, c.Front, why)
				default:
					h.Broken("nft list ruleset # on node "+node, "%s, of another program, keeps connection tracking from it, which translates", why)
				}
				apart(c, h, f)
				stale(c, h, f)
			}
		}
		hops = append(hops, *h)
	}
	return hops
}

// before finds a rule of another program that does something to the packet
// before Services are looked up.
func before(c *way.Case, f *facts.Node, verdict string) string {
	hook := "prerouting"
	if c.Origin == trace.FromNode {
		hook = "output"
	}
	p := packet(c, c.Front)
	p.In, _ = devices(c, f, c.From, c.Dst.Addr())
	for _, base := range f.Rules.Foreign {
		if base.Hook != hook || base.Priority >= servicesPriority {
			continue
		}
		if fate, why := facts.Find(f.Rules.Foreign, base, p, verdict); fate == facts.Dropped {
			return why
		}
	}
	return ""
}

// instead: what is not translated ends at the node, where a process listens at
// the Service's own address. NodeLocal DNSCache does so.
func instead(c *way.Case, f *facts.Node) bool {
	if f.Network == nil {
		return false
	}
	_, held := f.Network.Holder(c.Front.Addr())
	return held && slices.ContainsFunc(f.Network.Sockets, func(s facts.Socket) bool {
		return s.Proto == c.Proto && s.At.Port() == c.Front.Port() && (s.At.Addr() == c.Front.Addr() || s.At.Addr().IsUnspecified())
	})
}

// apart: both directions of a connection that is translated are tracked in the
// same zone, or answers belong to none.
func apart(c *way.Case, h *way.Hop, f *facts.Node) {
	hook := "prerouting"
	there, back := packet(c, c.Front), packet(c, netip.AddrPortFrom(c.Source(), 0))
	there.In, there.Out = devices(c, f, c.From, c.Dst.Addr())
	back.In, back.Src, back.Sport = there.Out, c.Dst.Addr(), c.Dst.Port()
	if there.Out = ""; c.Origin == trace.FromNode {
		hook, there.In, there.Out = "output", "", back.In
	}
	one, why := facts.Label(f.Rules.Foreign, hook, trackingPriority, there)
	other, whyBack := facts.Label(f.Rules.Foreign, "prerouting", trackingPriority, back)
	if one.Zone != other.Zone {
		h.Broken("nft list ruleset # on node "+c.Enters, "%s, of another program: it is tracked in zone %d and answers in zone %d, so nobody translates those back",
			cmp.Or(why, whyBack), one.Zone, other.Zone)
	}
}

// trackingPriority is where connection tracking looks at packets.
const trackingPriority = -200

// servicesPriority is that of the chains of inet poplin-services.
const servicesPriority = -100

// stale finds entries that send the client's datagrams elsewhere than new ones
// would go. TCP finds out by itself.
func stale(c *way.Case, h *way.Hop, f *facts.Node) {
	current := map[netip.AddrPort]bool{}
	front := vip.Front{Addr: c.Front.Addr(), Proto: c.Proto, Port: c.Front.Port()}
	for _, m := range []map[vip.Front]vip.Value{f.Rules.Services.Frontends, f.Rules.Services.Outside} {
		if v, ok := m[front]; ok {
			for i := range v.Count() {
				current[f.Rules.Services.Endpoints[vip.Slot{Group: v.Group(), Index: uint32(i)}]] = true
			}
		}
	}
	for _, k := range f.Flows.Known {
		if k.Proto != c.Proto || k.Dst != c.Front || c.From.IsValid() && k.Src.Addr() != c.From || current[k.To] {
			continue
		}
		h.Saw("%s to %s goes to %s, %d s left", k.Src, k.Dst, k.To, k.Left)
		if hasNoEnd(k) {
			h.Broken(fmt.Sprintf("conntrack -D -p %s -s %s -d %s --dport %d # on node %s", k.Proto, k.Src.Addr(), k.Dst.Addr(), k.Dst.Port(), c.Enters),
				"an old entry sends %s from %s to %s, which is no endpoint", k.Proto, k.Src, k.To)
		}
	}
}

// hasNoEnd: nobody closes a flow of datagrams, so an old entry goes on.
func hasNoEnd(k facts.Known) bool { return k.Proto.String() == "udp" }
