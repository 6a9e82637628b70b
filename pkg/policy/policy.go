// Package policy compiles NetworkPolicies and ClusterNetworkPolicies into
// what the kernel of one node should hold (pkg/program/permit). Inputs are
// the model's values, object by object; outputs are elements, with findings
// about what a user should mend. It refuses what cannot work, names it, and
// then permits nothing by it: a rule that is not understood opens no door.
// It knows neither the API server nor the kernel.
//
// A list of peers in a rule becomes a group, shared by all rules that say the
// same. Addresses that are in the same groups are one class. What a pod's
// policies say of a class is decided once, in Go, and is one element in the
// kernel; so a pod elsewhere that comes, goes or is labelled anew is the
// change of one element, unless nobody was like it before.
package policy

import (
	"maps"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/policy/peers"
	"poplin.dev/poplin/pkg/policy/ports"
	"poplin.dev/poplin/pkg/policy/verdict"
	"poplin.dev/poplin/pkg/program/elements"
	"poplin.dev/poplin/pkg/program/permit"
)

// Table joins all objects into one program. Setters only note what changed;
// Take compiles it.
type Table struct {
	node       string
	pods       map[policy.Key]*pod
	nodes      map[string]*node
	namespaces map[string]map[string]string
	policies   map[string]map[policy.Key]policy.NetworkPolicy // by namespace
	cluster    map[policy.Key]policy.ClusterPolicy

	groups    map[string]*peers.Group
	lastGroup int
	// within are groups with pods of a namespace, wide those with pods of
	// many, blocks those with addresses.
	within       map[string][]*peers.Group
	wide, blocks []*peers.Group

	holders  map[netip.Addr]*holder
	named    map[namedPort]map[uint16]int // how many pods have it
	subjects map[policy.Key]*subject
	profiles map[string]*verdict.Profile
	classes  peers.Classes
	segments map[permit.Range]*peers.Class
	numbers  ports.Numbers

	dirty dirty

	senders, receivers, loops elements.Map[netip.Addr, struct{}]
	peers                     elements.Map[netip.Addr, permit.Class]
	ranges                    elements.Map[permit.Range, permit.Class]
	pairs                     [2]elements.Map[permit.Pair, permit.Ports] // by direction
	ports                     elements.Map[permit.Span, struct{}]
}

// dirty is what has changed since the last settling.
type dirty struct {
	subjects map[policy.Key]bool
	pods     map[policy.Key]bool
	addrs    map[netip.Addr]bool
	groups   map[*peers.Group]bool // new ones
	ranges   bool
}

func newDirty() dirty {
	return dirty{
		subjects: map[policy.Key]bool{}, pods: map[policy.Key]bool{}, addrs: map[netip.Addr]bool{}, groups: map[*peers.Group]bool{},
	}
}

// pod is one with the groups that it is in, by their ids and in order.
type pod struct {
	policy.Pod
	groups []int
}

// node likewise.
type node struct {
	policy.Node
	groups []int
}

// holder is who has an address.
type holder struct {
	pods  []*pod // several may claim it; the last one made has it
	nodes []*node
	class *peers.Class
}

// subject is a pod of this node to which policies apply.
type subject struct {
	addrs    []netip.Addr
	profiles [2]*verdict.Profile // by direction
}

type namedPort struct {
	name  string
	proto policy.Protocol
}

// NewTable returns the empty table of a node. Its numbers are none of those
// that the kernel holds of an earlier process: while one program replaces the
// other, no number has two meanings. A start from nothing passes permit.New().
func NewTable(name string, before permit.Program) *Table {
	t := &Table{
		node:       name,
		pods:       map[policy.Key]*pod{},
		nodes:      map[string]*node{},
		namespaces: map[string]map[string]string{},
		policies:   map[string]map[policy.Key]policy.NetworkPolicy{},
		cluster:    map[policy.Key]policy.ClusterPolicy{},
		groups:     map[string]*peers.Group{},
		holders:    map[netip.Addr]*holder{},
		named:      map[namedPort]map[uint16]int{},
		subjects:   map[policy.Key]*subject{},
		profiles:   map[string]*verdict.Profile{},
		classes:    peers.NewClasses(),
		segments:   map[permit.Range]*peers.Class{},
		numbers:    ports.NewNumbers(),
		dirty:      newDirty(),
		senders:    elements.NewMap[netip.Addr, struct{}](),
		receivers:  elements.NewMap[netip.Addr, struct{}](),
		loops:      elements.NewMap[netip.Addr, struct{}](),
		peers:      elements.NewMap[netip.Addr, permit.Class](),
		ranges:     elements.NewMap[permit.Range, permit.Class](),
		pairs: [2]elements.Map[permit.Pair, permit.Ports]{
			elements.NewMap[permit.Pair, permit.Ports](), elements.NewMap[permit.Pair, permit.Ports](),
		},
		ports: elements.NewMap[permit.Span, struct{}](),
	}
	for p, n := range maps.All(before.Egress) {
		t.avoid(p.Class, n)
	}
	for p, n := range maps.All(before.Ingress) {
		t.avoid(p.Class, n)
	}
	for _, c := range before.Peers {
		t.avoid(c, 0)
	}
	for _, c := range before.Ranges {
		t.avoid(c, 0)
	}
	return t
}

// avoid has new numbers begin behind those of an earlier process.
func (t *Table) avoid(c permit.Class, p permit.Ports) {
	t.classes.Avoid(c)
	t.numbers.Avoid(p)
}

// SetPod takes over a pod of any node.
func (t *Table) SetPod(p policy.Pod) {
	old := t.pods[p.Key]
	next := &pod{Pod: p}
	// First the new ones: a number that stays must not be gone in between.
	for _, n := range p.Ports {
		t.countPort(n, 1)
	}
	if old != nil {
		t.release(old)
	}
	t.pods[p.Key] = next
	for _, a := range p.Addresses {
		h := t.holder(a)
		h.pods = append(h.pods, next)
		slices.SortStableFunc(h.pods, func(a, b *pod) int { return a.Created.Compare(b.Created) })
		t.touch(a)
	}
	t.dirty.pods[p.Key] = true
	if p.Node == t.node || old != nil && old.Node == t.node {
		t.dirty.subjects[p.Key] = true
	}
}

// DeletePod forgets a pod.
func (t *Table) DeletePod(key policy.Key) {
	if old := t.pods[key]; old != nil {
		t.release(old)
		delete(t.pods, key)
		t.dirty.subjects[key] = true
	}
}

// release takes a pod's addresses and ports back.
func (t *Table) release(p *pod) {
	for _, n := range p.Ports {
		t.countPort(n, -1)
	}
	for _, a := range p.Addresses {
		h := t.holder(a)
		h.pods = slices.DeleteFunc(h.pods, func(o *pod) bool { return o == p })
		t.touch(a)
	}
}

// touch has an address and the pods that claim it looked at again.
func (t *Table) touch(a netip.Addr) {
	t.dirty.addrs[a] = true
	for _, p := range t.holders[a].pods {
		if p.Node == t.node {
			t.dirty.subjects[p.Key] = true
		}
	}
}

func (t *Table) holder(a netip.Addr) *holder {
	h := t.holders[a]
	if h == nil {
		h = &holder{}
		t.holders[a] = h
	}
	return h
}

// countPort keeps which numbers a named port has. Where a number is new, or
// the last of its kind gone, rules that name the port mean something else.
func (t *Table) countPort(n policy.NamedPort, by int) {
	key := namedPort{n.Name, n.Protocol}
	if t.named[key] == nil {
		t.named[key] = map[uint16]int{}
	}
	before := t.named[key][n.Port]
	t.named[key][n.Port] = before + by
	if before+by == 0 {
		delete(t.named[key], n.Port)
	}
	if before == 0 || before+by == 0 {
		for k := range t.subjects {
			t.dirty.subjects[k] = true
		}
	}
}

// SetNode takes over a node, for policies with nodes as peers.
func (t *Table) SetNode(n policy.Node) {
	t.DeleteNode(n.Name)
	next := &node{Node: n}
	for _, g := range t.groups {
		if g.HasNode(n) {
			next.groups = append(next.groups, g.ID)
		}
	}
	slices.Sort(next.groups)
	t.nodes[n.Name] = next
	for _, a := range n.Addresses {
		h := t.holder(a)
		h.nodes = append(h.nodes, next)
		t.touch(a)
	}
}

// DeleteNode forgets a node.
func (t *Table) DeleteNode(name string) {
	old := t.nodes[name]
	if old == nil {
		return
	}
	delete(t.nodes, name)
	for _, a := range old.Addresses {
		h := t.holder(a)
		h.nodes = slices.DeleteFunc(h.nodes, func(o *node) bool { return o == old })
		t.touch(a)
	}
}

// SetNamespace takes over a namespace.
func (t *Table) SetNamespace(n policy.Namespace) {
	if old, known := t.namespaces[n.Name]; known && maps.Equal(old, n.Labels) {
		return
	}
	t.namespaces[n.Name] = n.Labels
	t.relabelled(n.Name)
}

// DeleteNamespace forgets a namespace.
func (t *Table) DeleteNamespace(name string) {
	delete(t.namespaces, name)
	t.relabelled(name)
}

func (t *Table) relabelled(namespace string) {
	for k, p := range t.pods {
		if k.Namespace == namespace {
			t.dirty.pods[k] = true
			t.dirty.subjects[k] = p.Node == t.node || t.dirty.subjects[k]
		}
	}
}

// SetPolicy takes over a NetworkPolicy.
func (t *Table) SetPolicy(p policy.NetworkPolicy) []Finding {
	p, findings := checked(p)
	in := t.policies[p.Namespace]
	if in == nil {
		in = map[policy.Key]policy.NetworkPolicy{}
		t.policies[p.Namespace] = in
	}
	t.selected(p.Namespace, in[p.Key].Pods)
	in[p.Key] = p
	t.selected(p.Namespace, p.Pods)
	return findings
}

// DeletePolicy forgets a NetworkPolicy.
func (t *Table) DeletePolicy(key policy.Key) {
	t.selected(key.Namespace, t.policies[key.Namespace][key].Pods)
	delete(t.policies[key.Namespace], key)
}

// selected has the pods of this node that a policy is about compiled anew.
func (t *Table) selected(namespace string, s policy.Selector) {
	for k := range t.subjects {
		if p := t.pods[k]; p != nil && k.Namespace == namespace && peers.Matches(s, p.Labels) {
			t.dirty.subjects[k] = true
		}
	}
}

// SetClusterPolicy takes over a ClusterNetworkPolicy.
func (t *Table) SetClusterPolicy(p policy.ClusterPolicy) []Finding {
	p, findings := checkedCluster(p)
	t.cluster[p.Key] = p
	t.everySubject()
	return findings
}

// DeleteClusterPolicy forgets a ClusterNetworkPolicy.
func (t *Table) DeleteClusterPolicy(key policy.Key) {
	delete(t.cluster, key)
	t.everySubject()
}

func (t *Table) everySubject() {
	for k := range t.subjects {
		t.dirty.subjects[k] = true
	}
}

// Take compiles what has changed and returns the difference since the last
// call.
func (t *Table) Take() (c permit.Change) {
	t.settle()
	c.Delete.Senders, c.Put.Senders = t.senders.Take()
	c.Delete.Receivers, c.Put.Receivers = t.receivers.Take()
	c.Delete.Loops, c.Put.Loops = t.loops.Take()
	c.Delete.Peers, c.Put.Peers = t.peers.Take()
	c.Delete.Ranges, c.Put.Ranges = t.ranges.Take()
	c.Delete.Egress, c.Put.Egress = t.pairs[verdict.Egress].Take()
	c.Delete.Ingress, c.Put.Ingress = t.pairs[verdict.Ingress].Take()
	c.Delete.Ports, c.Put.Ports = t.ports.Take()
	return c
}

// Program is all of it. The caller must not change it, and reads it before
// the next call.
func (t *Table) Program() permit.Program {
	t.settle()
	return permit.Program{
		Senders: t.senders.Now(), Receivers: t.receivers.Now(), Loops: t.loops.Now(),
		Peers: t.peers.Now(), Ranges: t.ranges.Now(),
		Egress: t.pairs[verdict.Egress].Now(), Ingress: t.pairs[verdict.Ingress].Now(), Ports: t.ports.Now(),
	}
}
