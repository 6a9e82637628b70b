package kube

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"reflect"
	"slices"
	"sync"
)

// object is what a view is told of: a decoded object of one kind.
type object interface{ GetName() string }

// view keeps the values of one kind of object, never the objects: of a
// NodeNetwork's kilobyte, managed fields and all, some 200 bytes stay.
type view[V any] struct {
	resource string
	client   *Client
	// convert is toSelf and its like, behind the store's type assertion.
	convert func(obj any) (V, error)

	mu       sync.Mutex
	items    map[string]item[V]
	complete bool
	// failure is why the latest list or watch could not be opened.
	failure error
}

// item is an object's value, or why it is skipped.
type item[V any] struct {
	value V
	err   error
}

func newView[O object, V any](c *Client, resource string, convert func(O) (V, error)) *view[V] {
	return &view[V]{
		resource: resource,
		client:   c,
		convert:  func(obj any) (V, error) { return convert(obj.(O)) },
		items:    map[string]item[V]{},
	}
}

func (v *view[V]) synced() bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.complete
}

func (v *view[V]) get(name string) (value V, err error, found bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	i, found := v.items[name]
	return i.value, i.err, found
}

// values are those of the objects that are understood, by name.
func (v *view[V]) values() []V {
	v.mu.Lock()
	defer v.mu.Unlock()
	list := make([]V, 0, len(v.items))
	for _, name := range slices.Sorted(maps.Keys(v.items)) {
		if i := v.items[name]; i.err == nil {
			list = append(list, i.value)
		}
	}
	return list
}

func (v *view[V]) size() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.items)
}

func (v *view[V]) skipped() map[string]string {
	v.mu.Lock()
	defer v.mu.Unlock()
	m := map[string]string{}
	for name, i := range v.items {
		if i.err != nil {
			m[name] = i.err.Error()
		}
	}
	return m
}

// reason is the failure as the end of a sentence.
func (v *view[V]) reason() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.failure == nil {
		return ""
	}
	return ": " + v.failure.Error()
}

// requested is told of every list and watch. Only changes are logged: an API
// server that is away for an hour is one line, not a thousand.
func (v *view[V]) requested(ctx context.Context, err error) {
	if errors.Is(err, context.Canceled) || ctx.Err() != nil {
		return
	}
	v.client.cfg.Observer.Requested(v.resource, err)
	// The URL differs with every attempt, and says nothing.
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	v.mu.Lock()
	before := v.failure
	v.failure = err
	v.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		v.client.log.Warn("cannot read from the API server; what is in place stays", "resource", v.resource, "error", err)
	case err == nil && before != nil:
		v.client.log.Info("reading from the API server again", "resource", v.resource, "server", v.client.Server())
	}
}

// put stores objects; all says that there are no others.
func (v *view[V]) put(objects []any, all bool) {
	items := make(map[string]item[V], len(objects))
	for _, obj := range objects {
		o, ok := obj.(object)
		if !ok {
			continue
		}
		value, err := v.convert(obj)
		items[o.GetName()] = item[V]{value, err}
	}
	v.mu.Lock()
	changed := all && (!v.complete || len(items) != len(v.items))
	for name, i := range items {
		if old, found := v.items[name]; !found || !same(old, i) {
			changed = true
			v.report(name, old.err, i.err)
		}
	}
	if all {
		v.items, v.complete = items, true
	} else {
		maps.Copy(v.items, items)
	}
	v.mu.Unlock()
	if changed {
		v.client.changed()
	}
}

func (v *view[V]) remove(name string) {
	v.mu.Lock()
	_, found := v.items[name]
	delete(v.items, name)
	v.mu.Unlock()
	if found {
		v.client.changed()
	}
}

func (v *view[V]) report(name string, before, now error) {
	switch {
	case now != nil:
		v.client.log.Warn("skip an object that is not understood", "resource", v.resource, "name", name, "error", now)
	case before != nil:
		v.client.log.Info("an object is understood again", "resource", v.resource, "name", name)
	}
}

func same[V any](a, b item[V]) bool {
	if a.err != nil || b.err != nil {
		return fmt.Sprint(a.err) == fmt.Sprint(b.err)
	}
	return reflect.DeepEqual(a.value, b.value)
}
