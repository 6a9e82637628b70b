package policies

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/kube/decode"
)

var (
	coreV1       = schema.GroupVersion{Version: "v1"}
	networkingV1 = schema.GroupVersion{Group: "networking.k8s.io", Version: "v1"}
)

// The kinds that come as protobuf. Their values are what stays of them; nobody
// writes to a value.
type (
	podObject struct {
		decode.Meta
		value policy.Pod
		// absent: it has ended, or has no network of its own.
		absent bool
	}
	namespaceObject struct {
		decode.Meta
		value policy.Namespace
	}
	policyObject struct {
		decode.Meta
		value policy.NetworkPolicy
	}
	nodeObject struct {
		decode.Meta
		value policy.Node
	}
)

type (
	podList       = decode.List[podObject, *podObject]
	nodeList      = decode.List[nodeObject, *nodeObject]
	namespaceList = decode.List[namespaceObject, *namespaceObject]
	policyList    = decode.List[policyObject, *policyObject]
)

// scheme knows these kinds and nothing else.
func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypeWithName(coreV1.WithKind("Pod"), &podObject{})
	s.AddKnownTypeWithName(coreV1.WithKind("PodList"), &podList{})
	s.AddKnownTypeWithName(coreV1.WithKind("Node"), &nodeObject{})
	s.AddKnownTypeWithName(coreV1.WithKind("NodeList"), &nodeList{})
	s.AddKnownTypeWithName(coreV1.WithKind("Namespace"), &namespaceObject{})
	s.AddKnownTypeWithName(coreV1.WithKind("NamespaceList"), &namespaceList{})
	s.AddKnownTypeWithName(networkingV1.WithKind("NetworkPolicy"), &policyObject{})
	s.AddKnownTypeWithName(networkingV1.WithKind("NetworkPolicyList"), &policyList{})
	for _, gv := range []schema.GroupVersion{coreV1, networkingV1} {
		metav1.AddToGroupVersion(s, gv)
	}
	return s
}

// Each Reset readies an object for Unmarshal.

func (o *podObject) Reset()       { *o = podObject{} }
func (o *nodeObject) Reset()      { *o = nodeObject{} }
func (o *namespaceObject) Reset() { *o = namespaceObject{} }
func (o *policyObject) Reset()    { *o = policyObject{} }

// Each DeepCopyObject implements runtime.Object. A copy shares its value.

func (o *podObject) DeepCopyObject() runtime.Object {
	return &podObject{o.Copy(), o.value, o.absent}
}
func (o *nodeObject) DeepCopyObject() runtime.Object { return &nodeObject{o.Copy(), o.value} }
func (o *namespaceObject) DeepCopyObject() runtime.Object {
	return &namespaceObject{o.Copy(), o.value}
}
func (o *policyObject) DeepCopyObject() runtime.Object { return &policyObject{o.Copy(), o.value} }
