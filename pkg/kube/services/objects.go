package services

import (
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/kube/decode"
)

var (
	coreV1       = schema.GroupVersion{Version: "v1"}
	discoveryV1  = schema.GroupVersion{Group: "discovery.k8s.io", Version: "v1"}
	networkingV1 = schema.GroupVersion{Group: "networking.k8s.io", Version: "v1"}
)

// The kinds. Their values are what stays of them; nobody writes to a value.
type (
	serviceObject struct {
		decode.Meta
		value service.Service
	}
	sliceObject struct {
		decode.Meta
		value service.Slice
		// trigger is when that happened of which this is the consequence.
		trigger time.Time
	}
	rangeObject struct {
		decode.Meta
		value []netip.Prefix
	}
)

type (
	serviceList = decode.List[serviceObject, *serviceObject]
	sliceList   = decode.List[sliceObject, *sliceObject]
	rangeList   = decode.List[rangeObject, *rangeObject]
)

// scheme knows these kinds and nothing else.
func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	s.AddKnownTypeWithName(coreV1.WithKind("Service"), &serviceObject{})
	s.AddKnownTypeWithName(coreV1.WithKind("ServiceList"), &serviceList{})
	s.AddKnownTypeWithName(discoveryV1.WithKind("EndpointSlice"), &sliceObject{})
	s.AddKnownTypeWithName(discoveryV1.WithKind("EndpointSliceList"), &sliceList{})
	s.AddKnownTypeWithName(networkingV1.WithKind("ServiceCIDR"), &rangeObject{})
	s.AddKnownTypeWithName(networkingV1.WithKind("ServiceCIDRList"), &rangeList{})
	for _, gv := range []schema.GroupVersion{coreV1, discoveryV1, networkingV1} {
		metav1.AddToGroupVersion(s, gv)
	}
	return s
}

// Each Reset readies an object for Unmarshal.

func (o *serviceObject) Reset() { *o = serviceObject{} }
func (o *sliceObject) Reset()   { *o = sliceObject{} }
func (o *rangeObject) Reset()   { *o = rangeObject{} }

// Each DeepCopyObject implements runtime.Object. A copy shares its value.

func (o *serviceObject) DeepCopyObject() runtime.Object { return &serviceObject{o.Copy(), o.value} }
func (o *sliceObject) DeepCopyObject() runtime.Object {
	return &sliceObject{o.Copy(), o.value, o.trigger}
}
func (o *rangeObject) DeepCopyObject() runtime.Object { return &rangeObject{o.Copy(), o.value} }
