// Package policies keeps current what policies are about: NetworkPolicies,
// ClusterNetworkPolicies, namespaces and pods, as far as a node's data path
// needs them. Inputs are a connection to the API server; outputs are values of
// pkg/cluster/policy and the keys of those that changed. Pods that have ended,
// and those that use the network of their node, are left out; of the others
// labels, addresses and named ports stay. What it cannot read of a rule
// permits nothing.
//
// ClusterNetworkPolicies are asked for while the API server has their kind,
// and nodes while one of them names nodes: every kubelet's report of its
// node's status comes to whoever watches nodes.
package policies

import (
	"slices"

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
	// ClusterPolicies are those of policy.networking.k8s.io.
	ClusterPolicies = "clusternetworkpolicies"
	Nodes           = "nodes"
)

// View is what is known of policies. It implements loop.Task.
type View struct {
	*follow.View
	pods       *follow.Store[pod]
	namespaces *follow.Store[policy.Namespace]
	policies   *follow.Store[networkPolicy]
	cluster    *follow.Store[clusterPolicy]
	nodes      *follow.Store[policy.Node]
	// naming counts the cluster policies that name nodes, guarded by Mu.
	naming int
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

// clusterPolicy is one, likewise.
type clusterPolicy struct {
	policy.ClusterPolicy
	uid   string
	nodes bool // it names some
}

// New makes a view; nothing is sent before Run.
func New(conf *rest.Config, how follow.Config) (*View, error) {
	how.Stays = "policies stay as they are"
	v := &View{View: follow.NewView(how)}
	var core, networking, cluster, extensions rest.Interface
	own := rest.CopyConfig(conf)
	own.ContentType, own.AcceptContentTypes = decode.ContentType, decode.ContentType
	err := group.Clients(own, scheme(), map[schema.GroupVersion]*rest.Interface{coreV1: &core, networkingV1: &networking})
	if err == nil {
		err = group.Clients(conf, clusterScheme(), map[schema.GroupVersion]*rest.Interface{policyV1alpha2: &cluster, extensionsV1: &extensions})
	}
	if err != nil {
		return nil, err
	}
	alike := labelSets{}
	v.pods = follow.Add(v.View, follow.Collection{
		API: core, Resource: Pods, One: &podObject{}, Many: &podList{},
		// Most of those that have ended are not even sent.
		Fields: "status.phase!=Succeeded,status.phase!=Failed",
	}, func(o any) (policy.Key, pod) {
		p := o.(*podObject)
		value := p.value
		value.Labels = alike.one(value.Labels)
		return p.Key(), pod{value, p.absent}
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
	v.addCluster(core, cluster, extensions)
	return v, nil
}

// addCluster adds what is there only where somebody has installed the kind.
func (v *View) addCluster(core, cluster, extensions rest.Interface) {
	definitions := follow.Add(v.View, follow.Collection{
		API: extensions, Resource: "customresourcedefinitions", Fields: "metadata.name=" + definitionName,
		One: &definitionObject{}, Many: &definitionList{},
	}, func(o any) (policy.Key, bool) {
		d := o.(*definitionObject)
		return policy.Key{Name: d.Name}, d.served()
	}, func(policy.Key, *bool, *bool) []policy.Key { return nil })
	v.cluster = follow.Add(v.View, follow.Collection{
		API: cluster, Resource: ClusterPolicies, One: &clusterPolicyObject{}, Many: &clusterPolicyList{},
	}, func(o any) (policy.Key, clusterPolicy) {
		p := o.(*clusterPolicyObject)
		value := readCluster(p.Name, p.Spec)
		return value.Key, clusterPolicy{value, string(p.UID), namesNodes(value)}
	}, func(key policy.Key, old, now *clusterPolicy) []policy.Key {
		if old != nil && old.nodes {
			v.naming--
		}
		if now != nil && now.nodes {
			v.naming++
		}
		return []policy.Key{key}
	})
	v.cluster.Only(func() bool { return definitions.Items[policy.Key{Name: definitionName}] })
	// All of a Node comes with every status, though little of it is read: its
	// addresses are in its status, and nowhere else for both families.
	v.nodes = follow.Add(v.View, follow.Collection{
		API: core, Resource: Nodes, One: &nodeObject{}, Many: &nodeList{},
	}, func(o any) (policy.Key, policy.Node) {
		n := o.(*nodeObject)
		return n.Key(), n.value
	}, func(key policy.Key, _, _ *policy.Node) []policy.Key {
		if !v.nodes.Whole() {
			return []policy.Key{{}} // policies have waited for the first list
		}
		return []policy.Key{key}
	})
	v.nodes.Only(func() bool { return v.naming > 0 })
}

// WithNodes has nodes followed whatever policies name. It is called before Run.
func (v *View) WithNodes() { v.naming++ }

func namesNodes(p policy.ClusterPolicy) bool {
	return slices.ContainsFunc(p.Egress, func(r policy.ClusterRule) bool {
		return slices.ContainsFunc(r.Peers, func(p policy.Peer) bool { return p.Nodes != nil })
	})
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

// ClusterPolicy is one ClusterNetworkPolicy. It waits while it names nodes and
// they are not known: until then a rule that denies nodes would deny none.
func (v *View) ClusterPolicy(key policy.Key) (p policy.ClusterPolicy, found, waits bool) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	c, found := v.cluster.Items[key]
	return c.ClusterPolicy, found, c.nodes && !v.nodes.Whole()
}

// Node is one of those that are followed.
func (v *View) Node(key policy.Key) (policy.Node, bool) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	n, found := v.nodes.Items[key]
	return n, found
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
	case ClusterPolicies:
		return keys(v.cluster.Items)
	case Nodes:
		return keys(v.nodes.Items)
	}
	return nil
}

// Objects are all of them. A ClusterNetworkPolicy that waits for nodes is not
// among them.
func (v *View) Objects() policy.Objects {
	var o policy.Objects
	o.Pods = all(v, Pods, v.Pod)
	o.Namespaces = all(v, Namespaces, v.Namespace)
	o.Nodes = all(v, Nodes, v.Node)
	o.Policies = all(v, Policies, v.Policy)
	o.Cluster = all(v, ClusterPolicies, func(k policy.Key) (policy.ClusterPolicy, bool) {
		p, found, waits := v.ClusterPolicy(k)
		return p, found && !waits
	})
	return o
}

// all are the objects of one kind.
func all[V any](v *View, resource string, get func(policy.Key) (V, bool)) (list []V) {
	for _, k := range v.Keys(resource) {
		if o, found := get(k); found {
			list = append(list, o)
		}
	}
	return list
}

func keys[V any](m map[policy.Key]V) []policy.Key {
	list := make([]policy.Key, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	return list
}

// Reference points to a NetworkPolicy or, without a namespace, to a
// ClusterNetworkPolicy.
func (v *View) Reference(key policy.Key) cluster.Reference {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	if key.Namespace == "" {
		return cluster.Reference{
			APIVersion: policyV1alpha2.String(), Kind: "ClusterNetworkPolicy", Name: key.Name, UID: v.cluster.Items[key].uid,
		}
	}
	return cluster.Reference{
		APIVersion: networkingV1.String(), Kind: "NetworkPolicy", Namespace: key.Namespace, Name: key.Name, UID: v.policies.Items[key].uid,
	}
}
