package services

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"reflect"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/kube/follow"
)

// collection is one kind of object. Its fields are guarded by the view's mu.
type collection[V any] struct {
	view *View
	what follow.Collection
	// value takes from an object what stays.
	value func(o any) (service.Key, V)
	// changed enters a value elsewhere, and says which Services it concerns.
	changed func(key service.Key, old, now *V) []service.Key

	items    map[service.Key]V
	complete bool
	failure  error
}

func (c *collection[V]) follow(ctx context.Context) {
	c.what.Spread = func(ctx context.Context) error {
		c.view.mu.Lock()
		again := c.complete
		c.view.mu.Unlock()
		return c.view.conf.Spread(ctx, again)
	}
	c.what.Requested = c.requested
	c.what.Run(ctx, c)
}

// requested logs changes only: an API server that is away for an hour is one
// line, not a thousand.
func (c *collection[V]) requested(ctx context.Context, err error) {
	if errors.Is(err, context.Canceled) || ctx.Err() != nil {
		return
	}
	c.view.conf.Requested(c.what.Resource, err)
	// The URL differs with every attempt, and says nothing.
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	c.view.mu.Lock()
	before := c.failure
	c.failure = err
	c.view.mu.Unlock()
	log := c.view.conf.Log.With("resource", c.what.Resource)
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		log.Warn("cannot read from the API server; Services stay as they are", "error", err)
	case err == nil && before != nil:
		log.Info("reading from the API server again")
	}
}

// waiting is called with the view's mu held.
func (c *collection[V]) waiting() string {
	switch {
	case c.complete:
		return ""
	case c.failure != nil:
		return fmt.Sprintf("reading the %s from the API server: %v", c.what.Resource, c.failure)
	}
	return fmt.Sprintf("reading the %s from the API server", c.what.Resource)
}

// put is called with the view's mu held.
func (c *collection[V]) put(key service.Key, now *V) []service.Key {
	old, found := c.items[key]
	var before *V
	if found {
		before = &old
	}
	if now == nil {
		delete(c.items, key)
	} else {
		c.items[key] = *now
	}
	if before == nil && now == nil || before != nil && now != nil && reflect.DeepEqual(*before, *now) {
		return nil
	}
	return c.changed(key, before, now)
}

// Add and the methods below implement cache.ReflectorStore.
func (c *collection[V]) Add(o any) error {
	key, now := c.value(o)
	c.view.mu.Lock()
	keys := c.put(key, &now)
	c.view.mu.Unlock()
	c.view.tell(c.what.Resource, keys)
	return nil
}

// Update is Add: what changed is found by comparison.
func (c *collection[V]) Update(o any) error { return c.Add(o) }

// Delete forgets an object.
func (c *collection[V]) Delete(o any) error {
	key, _ := c.value(o)
	c.view.mu.Lock()
	keys := c.put(key, nil)
	c.view.mu.Unlock()
	c.view.tell(c.what.Resource, keys)
	return nil
}

// Replace starts over from a complete list.
func (c *collection[V]) Replace(list []any, _ string) error {
	c.view.mu.Lock()
	var keys []service.Key
	here := make(map[service.Key]bool, len(list))
	for _, o := range list {
		key, now := c.value(o)
		here[key] = true
		keys = append(keys, c.put(key, &now)...)
	}
	for key := range c.items {
		if !here[key] {
			keys = append(keys, c.put(key, nil)...)
		}
	}
	c.complete = true
	c.view.mu.Unlock()
	c.view.tell(c.what.Resource, keys)
	return nil
}

// Resync has nothing to do: nobody queues behind this store.
func (c *collection[V]) Resync() error { return nil }
