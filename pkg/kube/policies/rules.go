package policies

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kjson "sigs.k8s.io/json"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
)

// The parts of a ClusterNetworkPolicy, as v1alpha2 has them. A field that is
// not among these is of a version that says something nobody here knows.
type (
	clusterSpec struct {
		Tier     policy.Tier       `json:"tier"`
		Priority int               `json:"priority"`
		Subject  json.RawMessage   `json:"subject"`
		Ingress  []json.RawMessage `json:"ingress"`
		Egress   []json.RawMessage `json:"egress"`
	}
	clusterRule struct {
		Name      string            `json:"name"`
		Action    policy.Action     `json:"action"`
		From      []podPeer         `json:"from"`
		To        []clusterPeer     `json:"to"`
		Protocols []clusterProtocol `json:"protocols"`
	}
	// podPeer is a peer of ingress, and what policies have as their subject.
	podPeer struct {
		Namespaces *metav1.LabelSelector `json:"namespaces"`
		Pods       *struct {
			Namespaces metav1.LabelSelector  `json:"namespaceSelector"`
			Pods       *metav1.LabelSelector `json:"podSelector"`
		} `json:"pods"`
	}
	clusterPeer struct {
		podPeer
		Nodes       *metav1.LabelSelector `json:"nodes"`
		Networks    []string              `json:"networks"`
		DomainNames []string              `json:"domainNames"`
	}
	clusterProtocol struct {
		TCP  *transport `json:"tcp"`
		UDP  *transport `json:"udp"`
		SCTP *transport `json:"sctp"`
		Name string     `json:"destinationNamedPort"`
	}
	transport struct {
		Port *struct {
			Number int `json:"number"`
			Range  *struct {
				Start int `json:"start"`
				End   int `json:"end"`
			} `json:"range"`
		} `json:"destinationPort"`
	}
)

// strict reads a part, of which every field has to be known.
func strict(b []byte, to any) error {
	odd, err := kjson.UnmarshalStrict(b, to)
	if err == nil && len(odd) > 0 {
		err = odd[0]
	}
	return err
}

// readCluster reads a ClusterNetworkPolicy. What it does not understand it
// says in the policy, or in the rule that it is in.
func readCluster(name string, spec []byte) policy.ClusterPolicy {
	p := policy.ClusterPolicy{Key: policy.Key{Name: name}}
	var s clusterSpec
	if err := kjson.UnmarshalCaseSensitivePreserveInts(spec, &s); err != nil {
		p.Unread = fmt.Sprintf("spec: %v", err)
		return p
	}
	p.Tier, p.Priority = s.Tier, s.Priority
	if p.Tier != policy.Admin && p.Tier != policy.Baseline {
		p.Unread = fmt.Sprintf("spec.tier: %q is neither %s nor %s", p.Tier, policy.Admin, policy.Baseline)
		return p
	}
	var subject podPeer
	err := strict(s.Subject, &subject)
	if err == nil {
		var selected policy.Peer
		if selected, err = subject.peer(); err == nil {
			p.Namespaces, p.Pods = *selected.Namespaces, selected.Pods
		}
	}
	if err != nil {
		p.Unread = fmt.Sprintf("spec.subject: %v", err)
		return p
	}
	for _, b := range s.Ingress {
		p.Ingress = append(p.Ingress, readRule(b, false))
	}
	for _, b := range s.Egress {
		p.Egress = append(p.Egress, readRule(b, true))
	}
	return p
}

// readRule reads name and action even of a rule that holds more than it knows.
func readRule(b []byte, egress bool) policy.ClusterRule {
	var r clusterRule
	err := strict(b, &r)
	out := policy.ClusterRule{Name: r.Name, Action: r.Action}
	if err == nil {
		out.Rule, err = r.rule(egress)
	}
	if err != nil {
		out.Rule, out.Unread = policy.Rule{}, err.Error()
	}
	return out
}

func (r clusterRule) rule(egress bool) (out policy.Rule, err error) {
	field, list := "from", make([]clusterPeer, len(r.From))
	for i, p := range r.From {
		list[i] = clusterPeer{podPeer: p}
	}
	if egress {
		field, list = "to", r.To
	}
	if len(list) == 0 || len(r.From) > 0 && len(r.To) > 0 {
		return out, fmt.Errorf("%s: must be all the peers there are, and one at least", field)
	}
	for i, p := range list {
		peers, err := p.peers()
		if err != nil {
			return out, fmt.Errorf("%s[%d]: %w", field, i, err)
		}
		out.Peers = append(out.Peers, peers...)
	}
	for i, p := range r.Protocols {
		port, err := p.port()
		if err != nil {
			return out, fmt.Errorf("protocols[%d]: %w", i, err)
		}
		out.Ports = append(out.Ports, port)
	}
	return out, nil
}

var errNotOne = errors.New("must have exactly one field that this version knows")

func (p podPeer) peer() (out policy.Peer, err error) {
	switch {
	case p.Namespaces != nil && p.Pods == nil:
		out.Namespaces, err = labels("namespaces", p.Namespaces)
	case p.Pods != nil && p.Namespaces == nil:
		if p.Pods.Pods == nil {
			return out, errors.New("pods.podSelector: is missing; an empty one is all pods")
		}
		if out.Namespaces, err = labels("pods.namespaceSelector", &p.Pods.Namespaces); err == nil {
			out.Pods, err = labels("pods.podSelector", p.Pods.Pods)
		}
	default:
		err = errNotOne
	}
	return out, err
}

func (p clusterPeer) peers() (out []policy.Peer, err error) {
	kinds := 0
	for _, there := range []bool{p.Namespaces != nil || p.Pods != nil, p.Nodes != nil, len(p.Networks) > 0, len(p.DomainNames) > 0} {
		if there {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return nil, errNotOne
	case p.Nodes != nil:
		s, err := labels("nodes", p.Nodes)
		return []policy.Peer{{Nodes: s}}, err
	case len(p.DomainNames) > 0:
		return nil, errors.New("domainNames: Poplin decides by addresses and does not look into DNS; use networks")
	case len(p.Networks) > 0:
		for i, n := range p.Networks {
			block, err := netip.ParsePrefix(n)
			if err != nil {
				return nil, fmt.Errorf("networks[%d]: %w", i, err)
			}
			out = append(out, policy.Peer{Block: block})
		}
		return out, nil
	}
	one, err := p.peer()
	return []policy.Peer{one}, err
}

func (p clusterProtocol) port() (out policy.Port, err error) {
	kinds := 0
	for proto, t := range map[service.Protocol]*transport{service.TCP: p.TCP, service.UDP: p.UDP, service.SCTP: p.SCTP} {
		if t != nil {
			kinds++
			out, err = t.port(proto)
		}
	}
	if p.Name != "" {
		kinds++
		out = policy.Port{Name: p.Name}
	}
	if kinds != 1 {
		return out, errNotOne
	}
	return out, err
}

func (t transport) port(proto service.Protocol) (policy.Port, error) {
	if t.Port == nil || (t.Port.Number != 0) == (t.Port.Range != nil) {
		return policy.Port{}, fmt.Errorf("%s.destinationPort: %w", proto, errNotOne)
	}
	first, last := t.Port.Number, t.Port.Number
	if r := t.Port.Range; r != nil {
		first, last = r.Start, r.End
	}
	if first < 1 || last > 65535 || first > last {
		return policy.Port{}, fmt.Errorf("%s.destinationPort: %d to %d are no ports", proto, first, last)
	}
	return policy.Port{Protocol: proto, First: uint16(first), Last: uint16(last)}, nil
}

// labels reads a selector, of which the schema leaves much to the reader.
func labels(field string, s *metav1.LabelSelector) (*policy.Selector, error) {
	if _, err := metav1.LabelSelectorAsSelector(s); err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	out := policy.Selector{}
	for _, k := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		out = append(out, policy.Requirement{Label: k, Operator: policy.In, Values: []string{s.MatchLabels[k]}})
	}
	for _, r := range s.MatchExpressions {
		out = append(out, policy.Requirement{Label: r.Key, Operator: policy.Operator(r.Operator), Values: r.Values})
	}
	return &out, nil
}
