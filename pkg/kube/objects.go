package kube

import (
	"encoding/json"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	coreV1      = schema.GroupVersion{Version: "v1"}
	discoveryV1 = schema.GroupVersion{Group: "discovery.k8s.io", Version: "v1"}
	poplinV1    = schema.GroupVersion{Group: "poplin.dev", Version: "v1alpha1"}
)

// scheme knows the kinds below and nothing else. The types of k8s.io/api would
// decode every image and volume of a Node to read four of its fields, and make
// the program half as large again.
func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypeWithName(coreV1.WithKind("Node"), &node{})
	s.AddKnownTypeWithName(coreV1.WithKind("NodeList"), &nodeList{})
	s.AddKnownTypeWithName(discoveryV1.WithKind("EndpointSlice"), &endpointSlice{})
	s.AddKnownTypeWithName(discoveryV1.WithKind("EndpointSliceList"), &endpointSliceList{})
	s.AddKnownTypes(poplinV1, &NodeNetwork{}, &NodeNetworkList{})
	for _, gv := range []schema.GroupVersion{coreV1, discoveryV1, poplinV1} {
		metav1.AddToGroupVersion(s, gv)
	}
	return s
}

// NodeNetwork is a node's part in the pod network, as the API server stores it.
type NodeNetwork struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	// Spec is a NodeNetworkSpec. It is read later and one by one, because a
	// single object of a wrong shape would fail the list or watch it is in.
	Spec json.RawMessage `json:"spec"`
}

// NodeNetworkSpec is the content of NodeNetwork.Spec.
type NodeNetworkSpec struct {
	PodCIDRs []string `json:"podCIDRs"`
	VTEP     struct {
		Address string `json:"address"`
		MAC     string `json:"mac,omitempty"`
	} `json:"vtep"`
	MTU    int      `json:"mtu"`
	Direct []string `json:"direct,omitempty"`
}

// NodeNetworkList is a list of NodeNetworks.
type NodeNetworkList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []NodeNetwork `json:"items"`
}

// node is what a node needs to know of its own Node.
type node struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		PodCIDRs []string `json:"podCIDRs"`
		Taints   []taint  `json:"taints"`
	} `json:"spec"`
	Status nodeStatus `json:"status"`
}

type taint struct {
	Key string `json:"key"`
}

type nodeStatus struct {
	Addresses  []nodeAddress   `json:"addresses"`
	Conditions []nodeCondition `json:"conditions"`
}

type nodeAddress struct {
	Type    string `json:"type"`
	Address string `json:"address"`
}

type nodeCondition struct {
	Type               string      `json:"type"`
	Status             string      `json:"status"`
	Reason             string      `json:"reason,omitempty"`
	Message            string      `json:"message,omitempty"`
	LastHeartbeatTime  metav1.Time `json:"lastHeartbeatTime"`
	LastTransitionTime metav1.Time `json:"lastTransitionTime"`
}

type nodeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []node `json:"items"`
}

// endpointSlice is what is read of the Service default/kubernetes.
type endpointSlice struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	AddressType       string     `json:"addressType"`
	Endpoints         []endpoint `json:"endpoints"`
	Ports             []port     `json:"ports"`
}

type endpoint struct {
	Addresses  []string `json:"addresses"`
	Conditions struct {
		Ready *bool `json:"ready"`
	} `json:"conditions"`
}

type port struct {
	Name *string `json:"name"`
	Port *int32  `json:"port"`
}

type endpointSliceList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []endpointSlice `json:"items"`
}

// DeepCopyObject implements runtime.Object.
func (o *NodeNetwork) DeepCopyObject() runtime.Object { c := o.deepCopy(); return &c }

func (o *NodeNetwork) deepCopy() NodeNetwork {
	return NodeNetwork{TypeMeta: o.TypeMeta, ObjectMeta: objectMeta(o.ObjectMeta), Spec: slices.Clone(o.Spec)}
}

// DeepCopyObject implements runtime.Object.
func (o *NodeNetworkList) DeepCopyObject() runtime.Object {
	return &NodeNetworkList{o.TypeMeta, listMeta(o.ListMeta), copyAll(o.Items, (*NodeNetwork).deepCopy)}
}

func (o *node) DeepCopyObject() runtime.Object { c := o.deepCopy(); return &c }

func (o *node) deepCopy() node {
	c := *o
	c.ObjectMeta = objectMeta(o.ObjectMeta)
	c.Spec.PodCIDRs = slices.Clone(o.Spec.PodCIDRs)
	c.Spec.Taints = slices.Clone(o.Spec.Taints)
	c.Status.Addresses = slices.Clone(o.Status.Addresses)
	c.Status.Conditions = slices.Clone(o.Status.Conditions)
	return c
}

func (o *nodeList) DeepCopyObject() runtime.Object {
	return &nodeList{o.TypeMeta, listMeta(o.ListMeta), copyAll(o.Items, (*node).deepCopy)}
}

func (o *endpointSlice) DeepCopyObject() runtime.Object { c := o.deepCopy(); return &c }

// deepCopy shares the pointers' targets: nothing writes through them.
func (o *endpointSlice) deepCopy() endpointSlice {
	c := *o
	c.ObjectMeta = objectMeta(o.ObjectMeta)
	c.Ports = slices.Clone(o.Ports)
	c.Endpoints = copyAll(o.Endpoints, func(e *endpoint) endpoint {
		c := *e
		c.Addresses = slices.Clone(e.Addresses)
		return c
	})
	return c
}

func (o *endpointSliceList) DeepCopyObject() runtime.Object {
	return &endpointSliceList{o.TypeMeta, listMeta(o.ListMeta), copyAll(o.Items, (*endpointSlice).deepCopy)}
}

func objectMeta(m metav1.ObjectMeta) metav1.ObjectMeta { return *m.DeepCopy() }

func listMeta(m metav1.ListMeta) metav1.ListMeta { return *m.DeepCopy() }

func copyAll[T any](items []T, deepCopy func(*T) T) []T {
	if items == nil {
		return nil
	}
	list := make([]T, len(items))
	for i := range items {
		list[i] = deepCopy(&items[i])
	}
	return list
}
