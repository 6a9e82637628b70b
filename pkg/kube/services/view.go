// Package services keeps the cluster's Services, EndpointSlices and
// ServiceCIDRs current, as far as a node's data path needs them. Inputs are a
// connection to the API server; outputs are values of pkg/cluster/service and
// the keys of those that changed. It refuses what is not for this proxy where
// the API server can tell (headless Services, their slices, and Services that
// name another proxy are not even sent), and holds values only: of an object
// with its managed fields a tenth stays.
package services

import (
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/kube/decode"
	"poplin.dev/poplin/pkg/kube/follow"
	"poplin.dev/poplin/pkg/kube/group"
)

// View is what is known of Services. It implements loop.Task.
type View struct {
	*follow.View
	services *follow.Store[svc]
	slices   *follow.Store[slice]
	ranges   *follow.Store[[]netip.Prefix]

	// parts names the slices of a Service, triggers are the oldest causes of
	// changes that nobody has asked for; both are guarded by Mu.
	parts    map[service.Key][]service.Key
	triggers map[service.Key]time.Time
}

// svc is a Service.
type svc struct {
	service.Service
	uid string
}

// slice is an EndpointSlice, with the time of what made it change.
type slice struct {
	service.Slice
	uid     string
	trigger time.Time
}

// New makes a view; nothing is sent before Run.
func New(conf *rest.Config, how follow.Config) (*View, error) {
	how.Stays = "Services stay as they are"
	v := &View{View: follow.NewView(how), parts: map[service.Key][]service.Key{}, triggers: map[service.Key]time.Time{}}
	conf = rest.CopyConfig(conf)
	conf.ContentType, conf.AcceptContentTypes = decode.ContentType, decode.ContentType
	var core, discovery, networking rest.Interface
	err := group.Clients(conf, scheme(), map[schema.GroupVersion]*rest.Interface{
		coreV1: &core, discoveryV1: &discovery, networkingV1: &networking,
	})
	if err != nil {
		return nil, err
	}
	v.services = follow.Add(v.View, follow.Collection{
		API: core, Resource: "services", One: &serviceObject{}, Many: &serviceList{},
		Labels: "!" + proxyName, Fields: "spec.clusterIP!=None",
	}, func(o any) (service.Key, svc) {
		s := o.(*serviceObject)
		return s.Key(), svc{s.value, string(s.UID)}
	}, nil)
	v.slices = follow.Add(v.View, follow.Collection{
		API: discovery, Resource: "endpointslices", One: &sliceObject{}, Many: &sliceList{},
		Labels: "!" + headless,
	}, func(o any) (service.Key, slice) {
		s := o.(*sliceObject)
		return s.Key(), slice{s.value, string(s.UID), s.trigger}
	}, v.sliceChanged)
	v.ranges = follow.Add(v.View, follow.Collection{
		API: networking, Resource: "servicecidrs", One: &rangeObject{}, Many: &rangeList{},
	}, func(o any) (service.Key, []netip.Prefix) {
		r := o.(*rangeObject)
		return r.Key(), r.value
	}, v.rangeChanged)
	return v, nil
}

func (v *View) String() string { return "services view" }

// Services lists all of them.
func (v *View) Services() []service.Service {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	list := make([]service.Service, 0, len(v.services.Items))
	for _, s := range v.services.Items {
		list = append(list, s.Service)
	}
	return list
}

// Service is one of them.
func (v *View) Service(key service.Key) (service.Service, bool) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	s, found := v.services.Items[key]
	return s.Service, found
}

// Slices are those of one Service, whether or not there is such a Service.
func (v *View) Slices(key service.Key) []service.Slice {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	list := make([]service.Slice, 0, len(v.parts[key]))
	for _, part := range v.parts[key] {
		list = append(list, v.slices.Items[part].Slice)
	}
	return list
}

// Reference points to a Service, or to an EndpointSlice.
func (v *View) Reference(key service.Key, isSlice bool) cluster.Reference {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	if isSlice {
		return cluster.Reference{APIVersion: discoveryV1.String(), Kind: "EndpointSlice", Namespace: key.Namespace, Name: key.Name, UID: v.slices.Items[key].uid}
	}
	return cluster.Reference{APIVersion: "v1", Kind: "Service", Namespace: key.Namespace, Name: key.Name, UID: v.services.Items[key].uid}
}

// Ranges are those of all ServiceCIDRs.
func (v *View) Ranges() []netip.Prefix {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	var list []netip.Prefix
	for _, r := range v.ranges.Items {
		list = append(list, r...)
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list)
}

// Triggered is when the oldest change of a Service's endpoints began that was
// not asked for yet; zero if there is none.
func (v *View) Triggered(key service.Key) time.Time {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	t := v.triggers[key]
	delete(v.triggers, key)
	return t
}

// sliceChanged enters a slice with the Service it belongs to now.
func (v *View) sliceChanged(key service.Key, old, now *slice) (keys []service.Key) {
	owner := func(s *slice) service.Key {
		if s == nil || s.Service == "" {
			return service.Key{}
		}
		return service.Key{Namespace: s.Namespace, Name: s.Service}
	}
	before, after := owner(old), owner(now)
	if before != after {
		if v.parts[before] = slices.DeleteFunc(v.parts[before], func(k service.Key) bool { return k == key }); len(v.parts[before]) == 0 {
			delete(v.parts, before)
		}
		if after != (service.Key{}) {
			v.parts[after] = append(v.parts[after], key)
		}
	}
	for _, k := range []service.Key{before, after} {
		if k != (service.Key{}) && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	if after != (service.Key{}) && v.Told() && !now.trigger.IsZero() && (old == nil || !old.trigger.Equal(now.trigger)) {
		if first, waits := v.triggers[after]; !waits || now.trigger.Before(first) {
			v.triggers[after] = now.trigger
		}
	}
	return keys
}

func (v *View) rangeChanged(service.Key, *[]netip.Prefix, *[]netip.Prefix) []service.Key {
	return []service.Key{{}}
}
