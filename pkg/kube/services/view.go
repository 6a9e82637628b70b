// Package services keeps the cluster's Services, EndpointSlices and
// ServiceCIDRs current, as far as a node's data path needs them. Inputs are a
// connection to the API server; outputs are values of pkg/cluster/service and
// the keys of those that changed. It refuses what is not for this proxy where
// the API server can tell (headless Services, their slices, and Services that
// name another proxy are not even sent), and holds values only: of an object
// with its managed fields a tenth stays.
package services

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/kube/follow"
	"poplin.dev/poplin/pkg/kube/group"
)

// Config is how the API server is reached, and who is told of it.
type Config struct {
	REST *rest.Config
	// Spread may delay a list; again says that it is not the first.
	Spread func(ctx context.Context, again bool) error
	// Requested is told of every list and watch of a resource.
	Requested func(resource string, err error)
	Log       *slog.Logger
}

// View is what is known of Services. It implements loop.Task.
type View struct {
	conf     Config
	services collection[svc]
	slices   collection[slice]
	ranges   collection[[]netip.Prefix]
	ready    chan struct{}

	mu sync.Mutex
	// parts names the slices of a Service.
	parts map[service.Key][]service.Key
	// triggers are the oldest causes of changes that nobody has asked for.
	triggers    map[service.Key]time.Time
	subscribers []func(resource string, keys []service.Key)
	becameReady bool
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
func New(conf Config) (*View, error) {
	v := &View{
		conf: conf, ready: make(chan struct{}),
		parts: map[service.Key][]service.Key{}, triggers: map[service.Key]time.Time{},
	}
	rc := rest.CopyConfig(conf.REST)
	rc.ContentType, rc.AcceptContentTypes = protobuf, protobuf
	var core, discovery, networking rest.Interface
	err := group.Clients(rc, scheme(), map[schema.GroupVersion]*rest.Interface{
		coreV1: &core, discoveryV1: &discovery, networkingV1: &networking,
	})
	if err != nil {
		return nil, err
	}
	v.services = collection[svc]{
		view: v, changed: v.serviceChanged, items: map[service.Key]svc{}, value: func(o any) (service.Key, svc) {
			s := o.(*serviceObject)
			return s.key(), svc{s.value, string(s.UID)}
		},
		what: follow.Collection{
			API: core, Resource: "services", One: &serviceObject{}, Many: &serviceList{},
			Labels: "!" + proxyName, Fields: "spec.clusterIP!=None",
		},
	}
	v.slices = collection[slice]{
		view: v, changed: v.sliceChanged, items: map[service.Key]slice{}, value: func(o any) (service.Key, slice) {
			s := o.(*sliceObject)
			return s.key(), slice{s.value, string(s.UID), s.trigger}
		},
		what: follow.Collection{
			API: discovery, Resource: "endpointslices", One: &sliceObject{}, Many: &sliceList{},
			Labels: "!service.kubernetes.io/headless",
		},
	}
	v.ranges = collection[[]netip.Prefix]{
		view: v, changed: v.rangeChanged, items: map[service.Key][]netip.Prefix{}, value: func(o any) (service.Key, []netip.Prefix) {
			r := o.(*rangeObject)
			return r.key(), r.value
		},
		what: follow.Collection{API: networking, Resource: "servicecidrs", One: &rangeObject{}, Many: &rangeList{}},
	}
	return v, nil
}

const protobuf = "application/vnd.kubernetes.protobuf"

// Run watches until ctx ends.
func (v *View) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { v.services.follow(ctx) })
	wg.Go(func() { v.slices.follow(ctx) })
	wg.Go(func() { v.ranges.follow(ctx) })
	wg.Wait()
	return nil
}

// Ready is closed once the view was complete.
func (v *View) Ready() <-chan struct{} { return v.ready }

func (v *View) String() string { return "services view" }

// Waiting says why the view is not complete; empty once it is.
func (v *View) Waiting() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, w := range []string{v.services.waiting(), v.slices.waiting(), v.ranges.waiting()} {
		if w != "" {
			return w
		}
	}
	return ""
}

// Subscribe has changed called after every change, with the kind of object
// that changed and the Services that it concerns; none means all of them. It
// must not block.
func (v *View) Subscribe(changed func(resource string, keys []service.Key)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.subscribers = append(v.subscribers, changed)
}

// Complete is false before the first complete view.
func (v *View) Complete() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.complete()
}

// Services lists all of them.
func (v *View) Services() []service.Service {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := make([]service.Service, 0, len(v.services.items))
	for _, s := range v.services.items {
		list = append(list, s.Service)
	}
	return list
}

// Service is one of them.
func (v *View) Service(key service.Key) (service.Service, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	s, found := v.services.items[key]
	return s.Service, found
}

// Slices are those of one Service, whether or not there is such a Service.
func (v *View) Slices(key service.Key) []service.Slice {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := make([]service.Slice, 0, len(v.parts[key]))
	for _, part := range v.parts[key] {
		list = append(list, v.slices.items[part].Slice)
	}
	return list
}

// Reference points to a Service, or to an EndpointSlice.
func (v *View) Reference(key service.Key, isSlice bool) cluster.Reference {
	v.mu.Lock()
	defer v.mu.Unlock()
	if isSlice {
		return cluster.Reference{APIVersion: discoveryV1.String(), Kind: "EndpointSlice", Namespace: key.Namespace, Name: key.Name, UID: v.slices.items[key].uid}
	}
	return cluster.Reference{APIVersion: "v1", Kind: "Service", Namespace: key.Namespace, Name: key.Name, UID: v.services.items[key].uid}
}

// Ranges are those of all ServiceCIDRs.
func (v *View) Ranges() []netip.Prefix {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []netip.Prefix
	for _, r := range v.ranges.items {
		list = append(list, r...)
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list)
}

// Triggered is when the oldest change of a Service's endpoints began that was
// not asked for yet; zero if there is none.
func (v *View) Triggered(key service.Key) time.Time {
	v.mu.Lock()
	defer v.mu.Unlock()
	t := v.triggers[key]
	delete(v.triggers, key)
	return t
}

// complete is called with mu held.
func (v *View) complete() bool {
	return v.services.complete && v.slices.complete && v.ranges.complete
}

func (v *View) serviceChanged(key service.Key, _, _ *svc) []service.Key {
	return []service.Key{key}
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
	if after != (service.Key{}) && v.becameReady && !now.trigger.IsZero() && (old == nil || !old.trigger.Equal(now.trigger)) {
		if first, waits := v.triggers[after]; !waits || now.trigger.Before(first) {
			v.triggers[after] = now.trigger
		}
	}
	return keys
}

func (v *View) rangeChanged(service.Key, *[]netip.Prefix, *[]netip.Prefix) []service.Key {
	return []service.Key{{}}
}

// tell passes changes on. Before the first complete view nobody can use them.
func (v *View) tell(resource string, keys []service.Key) {
	v.mu.Lock()
	first := v.complete() && !v.becameReady
	if first {
		v.becameReady = true
		close(v.ready)
	}
	told, subscribers := v.becameReady, v.subscribers
	v.mu.Unlock()
	if first || slices.Contains(keys, service.Key{}) {
		keys = nil
	} else if len(keys) == 0 {
		return
	}
	for _, f := range subscribers {
		if told {
			f(resource, keys)
		}
	}
}
