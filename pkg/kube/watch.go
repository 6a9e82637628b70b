package kube

import (
	"context"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

const (
	// listTimeout bounds one list; a watch is bounded by its own timeout.
	listTimeout = time.Minute
	// spreadRate is how many requests of a kind the whole cluster together
	// may send in a second: lists, when every node has to start over at once.
	spreadRate = 100
	// spreadMax bounds how long a node waits for that.
	spreadMax = time.Minute
)

// selection narrows what is listed and watched.
type selection struct {
	namespace string
	fields    string
	labels    string
}

var everything selection

func named(name string) selection { return selection{fields: "metadata.name=" + name} }

func ofService(namespace, name string) selection {
	return selection{namespace: namespace, labels: "kubernetes.io/service-name=" + name}
}

// watch keeps the view current until ctx ends. one and many are empty objects
// of the kind.
func (v *view[V]) watch(ctx context.Context, api rest.Interface, one, many runtime.Object, only selection) {
	request := func(options *metav1.ListOptions) *rest.Request {
		options.FieldSelector, options.LabelSelector = only.fields, only.labels
		return api.Get().Namespace(only.namespace).Resource(v.resource).VersionedParams(options, metav1.ParameterCodec)
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			if err := v.spread(ctx); err != nil {
				return nil, err
			}
			bounded, cancel := context.WithTimeout(ctx, listTimeout)
			defer cancel()
			list := many.DeepCopyObject()
			err := request(&options).Do(bounded).Into(list)
			v.requested(ctx, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			if options.SendInitialEvents != nil { // a list, as a stream
				if err := v.spread(ctx); err != nil {
					return nil, err
				}
			}
			options.Watch = true
			w, err := request(&options).Watch(ctx)
			// Before Kubernetes 1.32 the reflector is refused, and lists.
			if options.SendInitialEvents == nil || !apierrors.IsInvalid(err) {
				v.requested(ctx, err)
			}
			return w, err
		},
	}
	// Failures are reported by the view, once; a zero logger discards the
	// reflector's own, which are a line for each attempt.
	ctx = klog.NewContext(ctx, klog.Logger{})
	cache.NewReflectorWithOptions(lw, one, v, cache.ReflectorOptions{
		Name:            v.resource,
		TypeDescription: v.resource,
		// Jitter 1 makes the longest wait 10 to 20 s, so that a network that
		// is back is used within 30 s, and not by all nodes in one instant.
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 20, Cap: 10 * time.Second},
	}).RunWithContext(ctx)
}

// spread delays a list that is not the process's first. After a restart of
// the API server every node of the cluster may need one (410 Gone); its view
// is the last good one, and can wait in proportion to the cluster's size.
func (v *view[V]) spread(ctx context.Context) error {
	most := v.client.spread()
	if !v.synced() || most <= 0 {
		return nil
	}
	select {
	case <-time.After(rand.N(most)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// spread is within what time all nodes together should send a request that
// each of them wants to send now.
func (c *Client) spread() time.Duration {
	return min(spreadMax, time.Duration(c.networks.size())*time.Second/spreadRate)
}

// Add and the methods below implement cache.ReflectorStore.
func (v *view[V]) Add(obj any) error { v.put([]any{obj}, false); return nil }

// Update is Add: what changed is found by comparison.
func (v *view[V]) Update(obj any) error { return v.Add(obj) }

// Delete forgets an object.
func (v *view[V]) Delete(obj any) error {
	if o, ok := obj.(object); ok {
		v.remove(o.GetName())
	}
	return nil
}

// Replace starts over from a complete list.
func (v *view[V]) Replace(list []any, _ string) error { v.put(list, true); return nil }

// Resync has nothing to do: nobody queues behind this store.
func (v *view[V]) Resync() error { return nil }
