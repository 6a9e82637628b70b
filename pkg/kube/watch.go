package kube

import (
	"context"
	"math/rand/v2"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"

	"poplin.dev/poplin/pkg/kube/follow"
)

const (
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
	follow.Collection{
		API: api, Resource: v.resource, Namespace: only.namespace, Fields: only.fields, Labels: only.labels,
		One: one, Many: many, Requested: v.requested,
		Heard:  func() { v.client.cfg.Observer.Heard(v.resource) },
		Spread: func(ctx context.Context) error { return v.client.spreadLists(ctx, v.synced()) },
	}.Run(ctx, v)
}

// spreadLists delays a list that is not the process's first. After a restart
// of the API server every node of the cluster may need one (410 Gone); its
// view is the last good one, and can wait in proportion to the cluster's size.
func (c *Client) spreadLists(ctx context.Context, again bool) error {
	most := c.spread()
	if !again || most <= 0 {
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
