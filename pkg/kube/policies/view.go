// Package policies keeps current what policies are about: NetworkPolicies,
// namespaces and pods, as far as a node's data path needs them. Inputs are a
// connection to the API server; outputs are values of pkg/cluster/policy and
// the keys of those that changed. Pods that have ended, and those that use the
// network of their node, are left out; of the others labels, addresses and
// named ports stay. What it cannot read of a rule permits nothing.
package policies

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/kube/decode"
	"poplin.dev/poplin/pkg/kube/follow"
	"poplin.dev/poplin/pkg/kube/group"
)

// The resources, as subscribers hear of them.
const (
	Pods       = "pods"
	Namespaces = "namespaces"
	Policies   = "networkpolicies"
)

// View is what is known of policies. It implements loop.Task.
type View struct {
	*follow.View
	pods       *follow.Store[pod]
	namespaces *follow.Store[policy.Namespace]
	policies   *follow.Store[networkPolicy]
}

// pod is one, unless it is absent.
type pod struct {
	policy.Pod
	absent bool
}

// networkPolicy is one, with what an Event needs.
type networkPolicy struct {
	policy.NetworkPolicy
	uid string
}

// New makes a view; nothing is sent before Run.
func New(conf *rest.Config, how follow.Config) (*View, error) {
	how.Stays = "policies stay as they are"
	v := &View{View: follow.NewView(how)}
	conf = rest.CopyConfig(conf)
	conf.ContentType, conf.AcceptContentTypes = decode.ContentType, decode.ContentType
	var core, networking rest.Interface
	err := group.Clients(conf, scheme(), map[schema.GroupVersion]*rest.Interface{coreV1: &core, networkingV1: &networking})
	if err != nil {
		return nil, err
	}
	v.pods = follow.Add(v.View, follow.Collection{
		API: core, Resource: Pods, One: &podObject{}, Many: &podList{},
		// Most of those that have ended are not even sent.
		Fields: "status.phase!=Succeeded,status.phase!=Failed",
	}, func(o any) (policy.Key, pod) {
		p := o.(*podObject)
		return p.Key(), pod{p.value, p.absent}
	}, nil)
	v.namespaces = follow.Add(v.View, follow.Collection{
		API: core, Resource: Namespaces, One: &namespaceObject{}, Many: &namespaceList{},
	}, func(o any) (policy.Key, policy.Namespace) {
		n := o.(*namespaceObject)
		return n.Key(), n.value
	}, nil)
	v.policies = follow.Add(v.View, follow.Collection{
		API: networking, Resource: Policies, One: &policyObject{}, Many: &policyList{},
	}, func(o any) (policy.Key, networkPolicy) {
		p := o.(*policyObject)
		return p.Key(), networkPolicy{p.value, string(p.UID)}
	}, nil)
	return v, nil
}

func (v *View) String() string { return "policies view" }

// Pod is one that policies see.
func (v *View) Pod(key policy.Key) (policy.Pod, bool) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	p, found := v.pods.Items[key]
	return p.Pod, found && !p.absent
}

// Namespace is one of them.
func (v *View) Namespace(key policy.Key) (policy.Namespace, bool) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	n, found := v.namespaces.Items[key]
	return n, found
}

// Policy is one NetworkPolicy.
func (v *View) Policy(key policy.Key) (policy.NetworkPolicy, bool) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	p, found := v.policies.Items[key]
	return p.NetworkPolicy, found
}

// Keys lists all objects of a resource.
func (v *View) Keys(resource string) []policy.Key {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	switch resource {
	case Pods:
		return keys(v.pods.Items)
	case Namespaces:
		return keys(v.namespaces.Items)
	case Policies:
		return keys(v.policies.Items)
	}
	return nil
}

func keys[V any](m map[policy.Key]V) []policy.Key {
	list := make([]policy.Key, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	return list
}

// Reference points to a NetworkPolicy.
func (v *View) Reference(key policy.Key) cluster.Reference {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	return cluster.Reference{
		APIVersion: networkingV1.String(), Kind: "NetworkPolicy", Namespace: key.Namespace, Name: key.Name, UID: v.policies.Items[key].uid,
	}
}
