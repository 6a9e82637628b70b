package policies

import (
	"encoding/json"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	policyV1alpha2 = schema.GroupVersion{Group: "policy.networking.k8s.io", Version: "v1alpha2"}
	extensionsV1   = schema.GroupVersion{Group: "apiextensions.k8s.io", Version: "v1"}
)

// definitionName names the CustomResourceDefinition of ClusterNetworkPolicies.
const definitionName = ClusterPolicies + ".policy.networking.k8s.io"

// The kinds that come as JSON, as there is nothing else for custom resources.
type (
	clusterPolicyObject struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		// Spec is read later and part by part: a single object of an
		// unexpected shape would fail the list or watch it is in.
		Spec json.RawMessage `json:"spec"`
	}
	clusterPolicyList struct {
		metav1.TypeMeta `json:",inline"`
		metav1.ListMeta `json:"metadata"`
		Items           []clusterPolicyObject `json:"items"`
	}
	definitionObject struct {
		metav1.TypeMeta   `json:",inline"`
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			Versions []definitionVersion `json:"versions"`
		} `json:"spec"`
		Status struct {
			Conditions []definitionCondition `json:"conditions"`
		} `json:"status"`
	}
	definitionVersion struct {
		Name   string `json:"name"`
		Served bool   `json:"served"`
	}
	definitionCondition struct {
		Type   string `json:"type"`
		Status string `json:"status"`
	}
	definitionList struct {
		metav1.TypeMeta `json:",inline"`
		metav1.ListMeta `json:"metadata"`
		Items           []definitionObject `json:"items"`
	}
)

// clusterScheme knows these kinds and nothing else.
func clusterScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypeWithName(policyV1alpha2.WithKind("ClusterNetworkPolicy"), &clusterPolicyObject{})
	s.AddKnownTypeWithName(policyV1alpha2.WithKind("ClusterNetworkPolicyList"), &clusterPolicyList{})
	s.AddKnownTypeWithName(extensionsV1.WithKind("CustomResourceDefinition"), &definitionObject{})
	s.AddKnownTypeWithName(extensionsV1.WithKind("CustomResourceDefinitionList"), &definitionList{})
	for _, gv := range []schema.GroupVersion{policyV1alpha2, extensionsV1} {
		metav1.AddToGroupVersion(s, gv)
	}
	return s
}

// served says that the API server answers for the version that is read here.
func (o *definitionObject) served() bool {
	return slices.Contains(o.Spec.Versions, definitionVersion{policyV1alpha2.Version, true}) &&
		slices.Contains(o.Status.Conditions, definitionCondition{"Established", "True"})
}

// Each DeepCopyObject implements runtime.Object. Nobody writes to what the
// copies share.

func (o *clusterPolicyObject) DeepCopyObject() runtime.Object {
	return &clusterPolicyObject{o.TypeMeta, *o.ObjectMeta.DeepCopy(), o.Spec}
}

func (l *clusterPolicyList) DeepCopyObject() runtime.Object {
	return &clusterPolicyList{l.TypeMeta, *l.ListMeta.DeepCopy(), slices.Clone(l.Items)}
}

func (o *definitionObject) DeepCopyObject() runtime.Object {
	c := *o
	c.ObjectMeta = *o.ObjectMeta.DeepCopy()
	return &c
}

func (l *definitionList) DeepCopyObject() runtime.Object {
	return &definitionList{l.TypeMeta, *l.ListMeta.DeepCopy(), slices.Clone(l.Items)}
}
