package services

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/elements"
	"poplin.dev/poplin/pkg/program/vip"
)

// Table joins the plans of all Services into one program, and keeps what no
// plan can know alone: which Service has an address and port that several
// claim, which number a group has, and which of its slots an endpoint.
type Table struct {
	node   Node
	plans  map[service.Key]*plan
	claims map[vip.Front][]*plan // the first one has it
	groups map[groupKey]*group
	fences map[vip.Front][]netip.Prefix // of the fronts in fenced
	ids    ids

	// udp: a Service with UDP ports has changed. ends: the same, and the
	// change is taken. gone: UDP fronts that such changes took away.
	udp, ends bool
	gone      map[vip.Front]bool
	starved   Starved

	frontends, outside elements.Map[vip.Front, vip.Value]
	endpoints          elements.Map[vip.Slot, netip.AddrPort]
	timeouts           elements.Map[vip.Front, uint32]
	fenced             elements.Map[vip.Front, struct{}]
	sources            elements.Map[vip.Source, struct{}]
	ranges             elements.Map[netip.Prefix, struct{}]
	addresses          elements.Counted[netip.Addr]
	hairpins           elements.Counted[netip.Addr]
}

// NewTable returns an empty table. What the kernel holds of an earlier
// process is found again in before, so that a restart changes nothing: groups
// keep their numbers and endpoints their slots. A start from nothing passes
// vip.New().
func NewTable(node Node, before vip.Program) *Table {
	t := &Table{
		plans:     map[service.Key]*plan{},
		claims:    map[vip.Front][]*plan{},
		groups:    map[groupKey]*group{},
		fences:    map[vip.Front][]netip.Prefix{},
		gone:      map[vip.Front]bool{},
		ids:       recall(before),
		frontends: elements.NewMap[vip.Front, vip.Value](),
		outside:   elements.NewMap[vip.Front, vip.Value](),
		endpoints: elements.NewMap[vip.Slot, netip.AddrPort](),
		timeouts:  elements.NewMap[vip.Front, uint32](),
		fenced:    elements.NewMap[vip.Front, struct{}](),
		sources:   elements.NewMap[vip.Source, struct{}](),
		ranges:    elements.NewMap[netip.Prefix, struct{}](),
		addresses: elements.NewCounted[netip.Addr](),
		hairpins:  elements.NewCounted[netip.Addr](),
	}
	t.setNode(node)
	return t
}

// setNode takes over what concerns no single Service.
func (t *Table) setNode(node Node) {
	t.node = node
	if t.node.IsNodeAddress == nil {
		t.node.IsNodeAddress = func(netip.Addr) bool { return false }
	}
	want := map[netip.Prefix]struct{}{}
	for _, r := range merged(slices.Clone(node.ServiceRanges)) {
		want[r.Masked()] = struct{}{}
	}
	for r := range maps.Clone(t.ranges.Now()) {
		if _, ok := want[r]; !ok {
			t.ranges.Remove(r)
		}
	}
	for r := range want {
		t.ranges.Put(r, struct{}{})
	}
}

// SetNode changes the node. All Services must be set again afterwards, since
// any of them may depend on it.
func (t *Table) SetNode(node Node) { t.setNode(node) }

// SetAll makes the Services of the table those of list, each compiled anew:
// the full pass, at start and after SetNode.
func (t *Table) SetAll(list []service.Service, slicesOf func(service.Key) []service.Slice) {
	keep := make(map[service.Key]bool, len(list))
	for _, s := range list {
		keep[s.Key] = true
	}
	for _, k := range t.Keys() {
		if !keep[k] {
			t.Delete(k)
		}
	}
	// The oldest first: the number of a front's group belongs to the Service
	// that has the front.
	for _, s := range slices.SortedFunc(slices.Values(list), olderService) {
		t.Set(s, slicesOf(s.Key))
	}
}

// Set compiles a Service anew.
func (t *Table) Set(s service.Service, list []service.Slice) {
	t.replace(s.Key, compile(&t.node, s, list))
}

// Delete forgets a Service.
func (t *Table) Delete(key service.Key) { t.replace(key, nil) }

// Len is how many Services the table has.
func (t *Table) Len() int { return len(t.plans) }

// Keys lists the Services of the table.
func (t *Table) Keys() []service.Key {
	return slices.SortedFunc(maps.Keys(t.plans), service.Key.Compare)
}

// replace puts one plan in another's place and brings the elements of all
// fronts that either claims up to date.
func (t *Table) replace(key service.Key, next *plan) {
	old := t.plans[key]
	delete(t.plans, key)
	t.udp = t.udp || old != nil && len(old.serving) > 0 || next != nil && len(next.serving) > 0
	fronts := map[vip.Front]struct{}{}
	if next != nil {
		t.starved.add(next.starved, 1)
		t.plans[key] = next
		t.join(next, fronts)
	}
	if old != nil {
		t.starved.add(old.starved, -1)
		t.leave(old, next, fronts)
	}
	for f := range fronts {
		t.settle(f)
	}
}

// join adds what a plan has; fronts collects the fronts it is about.
func (t *Table) join(p *plan, fronts map[vip.Front]struct{}) {
	for _, a := range p.addresses {
		t.addresses.Add(a)
	}
	for a := range p.hairpins {
		t.hairpins.Add(a)
	}
	for f := range p.entries {
		t.claims[f] = append(t.claims[f], p)
		slices.SortFunc(t.claims[f], older)
		fronts[f] = struct{}{}
	}
	// In a fixed order, so that the numbers do not depend on chance.
	for _, k := range slices.SortedFunc(maps.Keys(p.groups), groupKey.compare) {
		t.setGroup(k, p)
	}
}

// leave removes what a plan had and next has not.
func (t *Table) leave(p, next *plan, fronts map[vip.Front]struct{}) {
	for _, a := range p.addresses {
		t.addresses.Drop(a)
	}
	for a := range p.hairpins {
		t.hairpins.Drop(a)
	}
	for f := range p.entries {
		t.claims[f] = slices.DeleteFunc(t.claims[f], func(o *plan) bool { return o == p })
		if len(t.claims[f]) == 0 {
			delete(t.claims, f)
		}
		fronts[f] = struct{}{}
	}
	for k := range p.groups {
		if next == nil || next.groups[k] == nil {
			t.dropGroup(k)
		}
	}
}

// older orders plans that claim the same front: the Service that was first
// has it, as every node decides alike.
func older(a, b *plan) int { return olderService(a.service, b.service) }

func olderService(a, b service.Service) int {
	return cmp.Or(a.Created.Compare(b.Created), a.Key.Compare(b.Key))
}

// settle brings the elements of a front up to date.
func (t *Table) settle(f vip.Front) {
	claims := t.claims[f]
	if len(claims) == 0 {
		t.fence(f, false, nil)
		t.frontends.Remove(f)
		t.outside.Remove(f)
		t.timeouts.Remove(f)
		return
	}
	e := claims[0].entries[f]
	t.frontends.Put(f, t.value(e.inside))
	if e.override {
		t.outside.Put(f, t.value(e.outside))
	} else {
		t.outside.Remove(f)
	}
	if e.timeout > 0 {
		t.timeouts.Put(f, e.timeout)
	} else {
		t.timeouts.Remove(f)
	}
	t.fence(f, e.fenced, e.sources)
}

// fence says who may use a front.
func (t *Table) fence(f vip.Front, fenced bool, sources []netip.Prefix) {
	for _, r := range t.fences[f] {
		t.sources.Remove(vip.Source{Front: f, Clients: r})
	}
	delete(t.fences, f)
	if !fenced {
		t.fenced.Remove(f)
		return
	}
	t.fences[f] = sources
	t.fenced.Put(f, struct{}{})
	for _, r := range sources {
		t.sources.Put(vip.Source{Front: f, Clients: r}, struct{}{})
	}
}

func (t *Table) value(to target) vip.Value {
	if to.refusal != 0 {
		return to.refusal
	}
	g := t.groups[to.group]
	if g == nil {
		return vip.Drop // no number was left: reported, and better than a wrong answer
	}
	v := vip.To(g.id, len(g.slots))
	if to.group.sticky {
		v = v.Sticky()
	}
	if to.masquerade {
		v = v.Masqueraded()
	}
	return v
}

// Program is the whole of what the kernel should hold. The caller must not
// change it, and reads it before the next call.
func (t *Table) Program() vip.Program {
	return vip.Program{
		Frontends: t.frontends.Now(), Outside: t.outside.Now(), Endpoints: t.endpoints.Now(),
		Timeouts: t.timeouts.Now(), Fenced: t.fenced.Now(), Sources: t.sources.Now(),
		Addresses: t.addresses.Now(), Ranges: t.ranges.Now(), Hairpins: t.hairpins.Now(),
	}
}

// Take returns what has changed since the last call. With the first call the
// table is complete: numbers and slots of an earlier process that no Service
// has claimed by then are free. The change is to be made before the table's:
// the first one is the table.
func (t *Table) Take() (c vip.Change) {
	t.ids.forget()
	c.Delete.Frontends, c.Put.Frontends = t.frontends.Take()
	c.Delete.Outside, c.Put.Outside = t.outside.Take()
	c.Delete.Endpoints, c.Put.Endpoints = t.endpoints.Take()
	c.Delete.Timeouts, c.Put.Timeouts = t.timeouts.Take()
	c.Delete.Fenced, c.Put.Fenced = t.fenced.Take()
	c.Delete.Sources, c.Put.Sources = t.sources.Take()
	c.Delete.Addresses, c.Put.Addresses = t.addresses.Take()
	c.Delete.Ranges, c.Put.Ranges = t.ranges.Take()
	c.Delete.Hairpins, c.Put.Hairpins = t.hairpins.Take()
	t.ends, t.udp = t.ends || t.udp, false
	for f := range c.Delete.Frontends {
		if f.Proto == service.UDP {
			t.gone[f] = true
		}
	}
	return c
}

// Findings lists what a user should mend in a Service and its slices.
func (t *Table) Findings(key service.Key) []Finding {
	p := t.plans[key]
	if p == nil {
		return nil
	}
	out := slices.Clone(p.findings)
	for _, f := range slices.SortedFunc(maps.Keys(p.entries), compareFronts) {
		if first := t.claims[f][0]; first != p {
			out = append(out, Finding{Object: key, Reason: reason.AddressInUse,
				Message: fmt.Sprintf("%s is taken by the older Service %s", f, first.service.Key)})
		}
	}
	for k := range p.groups {
		if t.groups[k] == nil {
			return append(out, Finding{Object: key, Reason: reason.TooManyServices,
				Message: fmt.Sprintf("this node serves at most %d lists of endpoints, connections are dropped", vip.MaxGroups-vip.FirstGroup)})
		}
	}
	return out
}

func compareFronts(a, b vip.Front) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.Port, b.Port))
}

// Starved counts what traffic policy Local keeps from this node.
func (t *Table) Starved() Starved { return t.starved }

// Stale tells whether a UDP flow that came in at front must not go on to the
// endpoint to: it does not answer any more, or the Service is gone. The kernel
// would keep such a flow for as long as the client sends, which may be for
// ever. Endpoints that only drain keep their flows, and what never was a
// Service's is nobody's business.
func (t *Table) Stale(front vip.Front, to netip.AddrPort) bool {
	if len(t.claims[front]) == 0 {
		return t.gone[front] || contains(t.node.ServiceRanges, front.Addr)
	}
	p := t.claims[front][0]
	return !p.serving[p.entries[front].port][to]
}

// EndsFlows tells whether UDP flows may have become stale by changes that
// were taken since the last call of FlowsEnded.
func (t *Table) EndsFlows() bool { return t.ends }

// FlowsEnded says that every flow there is was judged by Stale.
func (t *Table) FlowsEnded() {
	t.ends = false
	clear(t.gone)
}

// Health is the health-check port of a Service, if it needs one.
func (t *Table) Health(key service.Key) (Health, bool) {
	if p := t.plans[key]; p != nil && p.health != nil {
		return *p.health, true
	}
	return Health{}, false
}
