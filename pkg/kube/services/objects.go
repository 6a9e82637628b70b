package services

import (
	"net/netip"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"poplin.dev/poplin/pkg/cluster/service"
)

var (
	coreV1       = schema.GroupVersion{Version: "v1"}
	discoveryV1  = schema.GroupVersion{Group: "discovery.k8s.io", Version: "v1"}
	networkingV1 = schema.GroupVersion{Group: "networking.k8s.io", Version: "v1"}
)

// meta is what a watch needs of an object, whatever its kind.
type meta struct {
	metav1.TypeMeta
	metav1.ObjectMeta
}

func (m meta) key() service.Key { return service.Key{Namespace: m.Namespace, Name: m.Name} }

// The kinds. Their values are what stays of them; nobody writes to a value.
type (
	serviceObject struct {
		meta
		value service.Service
	}
	sliceObject struct {
		meta
		value service.Slice
		// trigger is when that happened of which this is the consequence.
		trigger time.Time
	}
	rangeObject struct {
		meta
		value []netip.Prefix
	}
)

// list is a list of one kind.
type list[T any, P interface {
	*T
	Unmarshal(b []byte) error
}] struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []T
}

type (
	serviceList = list[serviceObject, *serviceObject]
	sliceList   = list[sliceObject, *sliceObject]
	rangeList   = list[rangeObject, *rangeObject]
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
func (l *list[T, P]) Reset()    { *l = list[T, P]{} }

// Each DeepCopyObject implements runtime.Object. A copy shares its value.

func (o *serviceObject) DeepCopyObject() runtime.Object { return &serviceObject{o.copy(), o.value} }
func (o *sliceObject) DeepCopyObject() runtime.Object {
	return &sliceObject{o.copy(), o.value, o.trigger}
}
func (o *rangeObject) DeepCopyObject() runtime.Object { return &rangeObject{o.copy(), o.value} }

func (l *list[T, P]) DeepCopyObject() runtime.Object {
	return &list[T, P]{l.TypeMeta, *l.ListMeta.DeepCopy(), append([]T(nil), l.Items...)}
}

func (m meta) copy() meta { return meta{m.TypeMeta, *m.ObjectMeta.DeepCopy()} }
