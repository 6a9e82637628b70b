// Package follow keeps a store in step with one collection of the API server.
// Inputs are a client of the collection's group and what to select; outputs
// are calls of the store, and of a function that hears how each request
// ended. It refuses to give up, and to know what is in the objects.
package follow

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// listTimeout bounds one list; a watch is bounded by its own timeout.
const listTimeout = time.Minute

// Collection is what to follow.
type Collection struct {
	API       rest.Interface
	Resource  string
	Namespace string // empty is all of them
	// Fields and Labels are selectors; empty ones select everything.
	Fields, Labels string
	// One and Many are empty objects of the kind and of its list.
	One, Many runtime.Object
	// Spread, if not nil, may delay each list, so that a cluster's nodes do
	// not all ask in one instant.
	Spread func(context.Context) error
	// List, if not nil, lists otherwise than by a request for all there is.
	List func(context.Context, metav1.ListOptions) (runtime.Object, error)
	// Requested is told of every list and watch.
	Requested func(context.Context, error)
	// Heard, if not nil, is told of every event of the watch.
	Heard func()
}

func (c Collection) request(options *metav1.ListOptions) *rest.Request {
	options.FieldSelector, options.LabelSelector = c.Fields, c.Labels
	return c.API.Get().Namespace(c.Namespace).Resource(c.Resource).VersionedParams(options, metav1.ParameterCodec)
}

func (c Collection) list(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	if err := c.spread(ctx); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	list := c.List
	if list == nil {
		list = c.all
	}
	all, err := list(bounded, options)
	c.Requested(ctx, err)
	return all, err
}

func (c Collection) all(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	list := c.Many.DeepCopyObject()
	return list, c.request(&options).Do(ctx).Into(list)
}

func (c Collection) spread(ctx context.Context) error {
	if c.Spread == nil {
		return nil
	}
	return c.Spread(ctx)
}

func (c Collection) watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	if options.SendInitialEvents != nil { // a list, as a stream
		if err := c.spread(ctx); err != nil {
			return nil, err
		}
	}
	options.Watch = true
	w, err := c.request(&options).Watch(ctx)
	// Before Kubernetes 1.32 the reflector is refused, and lists.
	if options.SendInitialEvents == nil || !apierrors.IsInvalid(err) {
		c.Requested(ctx, err)
	}
	return w, err
}

// Run follows the collection until ctx ends.
func (c Collection) Run(ctx context.Context, store cache.ReflectorStore) {
	// Failures are reported by the store's owner, once; a zero logger
	// discards the reflector's own, which are a line for each attempt.
	ctx = klog.NewContext(ctx, klog.Logger{})
	heard := c.Heard
	if heard == nil {
		heard = func() {}
	}
	cache.NewReflectorWithOptions(&cache.ListWatch{ListWithContextFunc: c.list, WatchFuncWithContext: c.watch}, c.One, counted{store, heard}, cache.ReflectorOptions{
		Name:            c.Resource,
		TypeDescription: c.Resource,
		// Jitter 1 makes the longest wait 10 to 20 s, so that a network that
		// is back is used within 30 s, and not by all nodes in one instant.
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 20, Cap: 10 * time.Second},
	}).RunWithContext(ctx)
}

// counted is a store that tells of every event. What a list brings is none.
type counted struct {
	cache.ReflectorStore
	heard func()
}

func (s counted) Add(o any) error    { s.heard(); return s.ReflectorStore.Add(o) }
func (s counted) Update(o any) error { s.heard(); return s.ReflectorStore.Update(o) }
func (s counted) Delete(o any) error { s.heard(); return s.ReflectorStore.Delete(o) }

// Transformer implements cache.TransformingStore. While a list comes in as a
// stream, the reflector keeps all of its objects; who has set which of their
// fields, of no use to anybody here, is most of a small one.
func (s counted) Transformer() cache.TransformFunc { return withoutManagers }

func withoutManagers(o any) (any, error) {
	if m, err := meta.Accessor(o); err == nil {
		m.SetManagedFields(nil)
	}
	return o, nil
}
