// Package policy is the part of the model that decides who may talk to whom:
// pods with their labels, namespaces, NetworkPolicies and
// ClusterNetworkPolicies. Inputs are facts from the API; outputs are the
// arguments of pkg/policy. It refuses to know where the facts come from, and
// checks nothing: what is wrong with an object is for the compiler to say.
package policy

import (
	"encoding/json"
	"net/netip"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
)

// Key names an object within its kind; that of a ClusterPolicy has no
// namespace.
type Key = service.Key

// Protocol is a transport protocol by its IANA number.
type Protocol = service.Protocol

// Pod is what policies see of a pod. One that has ended, or that uses the
// network of its node, is not among them.
type Pod struct {
	Key
	// UID is the one under which its node runs it.
	UID string
	// Node is where it runs.
	Node   string
	Labels map[string]string
	// Addresses are empty until the pod has a network.
	Addresses []netip.Addr
	// Ports are the named ones of its containers.
	Ports []NamedPort
	// Created tells which of two pods holds an address that both claim.
	Created time.Time
}

// NamedPort is a container's port that has a name.
type NamedPort struct {
	Name     string
	Protocol Protocol
	Port     uint16
}

// Namespace has labels, among them its name as kubernetes.io/metadata.name.
type Namespace struct {
	Name   string
	Labels map[string]string
}

// Node is what policies see of a node: all addresses under which it sends.
type Node struct {
	Name      string
	Labels    map[string]string
	Addresses []netip.Addr
}

// NetworkPolicy is one of networking.k8s.io/v1.
type NetworkPolicy struct {
	Key
	// Pods are those of its namespace that it is about.
	Pods Selector
	// Ingress and Egress are nil where the policy says nothing of the
	// direction; an empty Rules isolates and allows nothing.
	Ingress, Egress *Rules
}

// Rules allow what any one of them allows.
type Rules []Rule

// MarshalJSON has Rules without any, which isolate, differ from no Rules at all.
func (r Rules) MarshalJSON() ([]byte, error) { return list(r) }

// Rule allows traffic with one of the peers at one of the ports.
type Rule struct {
	// Peers, if nil, are everybody.
	Peers []Peer
	// Ports, if nil, are all ports of all protocols.
	Ports []Port
}

// Peer is a set of others: pods, or addresses if Block is valid. Of pods, a
// nil Namespaces means the policy's own namespace, a nil Pods all.
type Peer struct {
	Pods, Namespaces *Selector
	Block            netip.Prefix
	Except           []netip.Prefix
	// Nodes are those of a ClusterPolicy's egress.
	Nodes *Selector
	// Unknown is a peer of a NetworkPolicy that the reader did not understand.
	Unknown bool
}

// Port is a number, a range or a name. With neither it is every port of the
// protocol; with Protocol 0 too, every packet.
type Port struct {
	Protocol Protocol
	// First and Last are the same for a single number.
	First, Last uint16
	Name        string
}

// Selector matches labels: all of its requirements hold. Without any it
// matches everything.
type Selector []Requirement

// MarshalJSON has a Selector of everything differ from none.
func (s Selector) MarshalJSON() ([]byte, error) { return list(s) }

// list writes one without elements as [], as null is what a nil pointer is.
func list[V any](of []V) ([]byte, error) {
	if of == nil {
		of = []V{}
	}
	return json.Marshal(of)
}

// Requirement is about one label.
type Requirement struct {
	Label    string
	Operator Operator
	Values   []string
}

// Operator is how a label is compared.
type Operator string

// The operators as the API spells them; matchLabels is In with one value.
const (
	In           Operator = "In"
	NotIn        Operator = "NotIn"
	Exists       Operator = "Exists"
	DoesNotExist Operator = "DoesNotExist"
)

// ClusterPolicy is a ClusterNetworkPolicy of policy.networking.k8s.io/v1alpha2.
type ClusterPolicy struct {
	Key
	Tier Tier
	// Priority counts from 0, which is decided first.
	Priority int
	// Namespaces and Pods are its subject; a nil Pods means all pods of
	// the namespaces.
	Namespaces Selector
	Pods       *Selector
	// Ingress and Egress are in order: the first that matches decides.
	Ingress, Egress []ClusterRule
	// Unread, if not empty, is why nobody knows which pods it is about, or
	// when it is asked.
	Unread string
}

// Tier says whether a ClusterPolicy is asked before NetworkPolicies or after.
type Tier string

// The tiers as the API spells them.
const (
	Admin    Tier = "Admin"
	Baseline Tier = "Baseline"
)

// ClusterRule is one rule of a ClusterPolicy.
type ClusterRule struct {
	Name   string
	Action Action
	Rule
	// Unread, if not empty, is what of the rule the reader did not understand.
	Unread string
}

// Action is what becomes of a connection that a ClusterRule matches.
type Action string

// The actions as the API spells them. Pass leaves the decision to
// NetworkPolicies, and after them to the baseline.
const (
	Accept Action = "Accept"
	Deny   Action = "Deny"
	Pass   Action = "Pass"
)

// Objects are all that decide who may talk to whom.
type Objects struct {
	Pods       []Pod
	Namespaces []Namespace
	Nodes      []Node
	Policies   []NetworkPolicy
	Cluster    []ClusterPolicy
}
