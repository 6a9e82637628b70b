package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"reflect"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"poplin.dev/poplin/pkg/cluster/service"
)

// Config is how a view reaches the API server, and who is told of it.
type Config struct {
	// Spread may delay a list; again says that it is not the first.
	Spread func(ctx context.Context, again bool) error
	// Requested is told of every list and watch of a resource.
	Requested func(resource string, err error)
	// Heard, if not nil, is told of every event of a resource.
	Heard func(resource string)
	// Stays is what the log says of what goes on without the API server.
	Stays string
	Log   *slog.Logger
}

// View is several collections that are of use together only: subscribers hear
// nothing before each of them is complete.
type View struct {
	conf  Config
	ready chan struct{}
	parts []part

	// Mu guards what the stores hold, and what their Changed functions write.
	Mu          sync.Mutex
	turn        *sync.Cond // tells of every change
	becameReady bool
	subscribers []func(resource string, keys []service.Key)
}

type part interface {
	follow(ctx context.Context)
	isComplete() bool
	waiting() string
}

// NewView returns a view of nothing yet.
func NewView(conf Config) *View {
	v := &View{conf: conf, ready: make(chan struct{})}
	v.turn = sync.NewCond(&v.Mu)
	return v
}

// Run follows all stores until ctx ends.
func (v *View) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, p := range v.parts {
		wg.Go(func() { p.follow(ctx) })
	}
	wg.Wait()
	return nil
}

// Ready is closed once the view was complete.
func (v *View) Ready() <-chan struct{} { return v.ready }

// Waiting says why the view is not complete; empty once it is.
func (v *View) Waiting() string {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	for _, p := range v.parts {
		if w := p.waiting(); w != "" {
			return w
		}
	}
	return ""
}

// Complete is false before the first complete view.
func (v *View) Complete() bool {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	return v.complete()
}

func (v *View) complete() bool {
	return !slices.ContainsFunc(v.parts, func(p part) bool { return !p.isComplete() })
}

// Told reports whether subscribers hear of changes; call it with Mu held.
func (v *View) Told() bool { return v.becameReady }

// Subscribe has changed called after every change, with the kind of object
// that changed and the keys that it concerns; none means all of them. It must
// not block.
func (v *View) Subscribe(changed func(resource string, keys []service.Key)) {
	v.Mu.Lock()
	defer v.Mu.Unlock()
	v.subscribers = append(v.subscribers, changed)
}

// tell passes changes on. Before the first complete view nobody can use them.
func (v *View) tell(resource string, keys []service.Key) {
	v.Mu.Lock()
	v.turn.Broadcast()
	first := v.complete() && !v.becameReady
	if first {
		v.becameReady = true
		close(v.ready)
	}
	told, subscribers := v.becameReady, v.subscribers
	v.Mu.Unlock()
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

// Store is one collection of a view, as values of V.
type Store[V any] struct {
	view *View
	what Collection
	// value takes from an object what stays.
	value func(o any) (service.Key, V)
	// changed enters a value elsewhere, and says which keys it concerns.
	changed func(key service.Key, old, now *V) []service.Key
	// needed says whether the collection is to be followed; nil: always.
	needed func() bool

	// Items are what is there, guarded by the view's Mu.
	Items   map[service.Key]V
	whole   bool
	failure error
}

// Add makes a store part of a view. changed may be nil: the object's own key
// is all that a change concerns.
func Add[V any](v *View, what Collection, value func(o any) (service.Key, V), changed func(key service.Key, old, now *V) []service.Key) *Store[V] {
	if changed == nil {
		changed = func(key service.Key, _, _ *V) []service.Key { return []service.Key{key} }
	}
	s := &Store[V]{view: v, what: what, value: value, changed: changed, Items: map[service.Key]V{}}
	v.parts = append(v.parts, s)
	return s
}

// Only has the collection followed only while needed says so, which is asked
// with Mu held whenever something of the view has changed. Until then it costs
// no request, and the view is complete without it; afterwards it is empty.
func (s *Store[V]) Only(needed func() bool) { s.needed = needed }

// Whole reports whether all of the collection is there; call it with Mu held.
func (s *Store[V]) Whole() bool { return s.whole }

func (s *Store[V]) idle() bool { return s.needed != nil && !s.needed() }

func (s *Store[V]) isComplete() bool { return s.whole || s.idle() }

func (s *Store[V]) follow(ctx context.Context) {
	s.what.Spread = func(ctx context.Context) error {
		s.view.Mu.Lock()
		// What has become needed has become so for every node.
		again := s.whole || s.needed != nil && s.view.becameReady
		s.view.Mu.Unlock()
		return s.view.conf.Spread(ctx, again)
	}
	s.what.Requested = s.requested
	if heard := s.view.conf.Heard; heard != nil {
		s.what.Heard = func() { heard(s.what.Resource) }
	}
	if s.needed == nil {
		s.what.Run(ctx, s)
		return
	}
	for s.until(ctx, false) {
		while, stop := context.WithCancel(ctx)
		var run sync.WaitGroup
		run.Go(func() { s.what.Run(while, s) })
		ended := !s.until(ctx, true)
		stop()
		run.Wait()
		if ended {
			return // what it held stays true
		}
		s.replace(nil, false)
	}
}

// until waits until the store is idle, or is not. It reports false when ctx
// ends first.
func (s *Store[V]) until(ctx context.Context, idle bool) bool {
	s.view.Mu.Lock()
	defer s.view.Mu.Unlock()
	defer context.AfterFunc(ctx, func() {
		s.view.Mu.Lock()
		defer s.view.Mu.Unlock()
		s.view.turn.Broadcast()
	})()
	for ctx.Err() == nil && s.idle() != idle {
		s.view.turn.Wait()
	}
	return ctx.Err() == nil
}

// requested logs changes only: an API server that is away for an hour is one
// line, not a thousand.
func (s *Store[V]) requested(ctx context.Context, err error) {
	if errors.Is(err, context.Canceled) || ctx.Err() != nil {
		return
	}
	if s.needed != nil && apierrors.IsNotFound(err) {
		return // the kind is about to come, or to go
	}
	s.view.conf.Requested(s.what.Resource, err)
	// The URL differs with every attempt, and says nothing.
	if wrapped := (*url.Error)(nil); errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	s.view.Mu.Lock()
	before := s.failure
	s.failure = err
	s.view.Mu.Unlock()
	log := s.view.conf.Log.With("resource", s.what.Resource)
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		log.Warn("cannot read from the API server; "+s.view.conf.Stays, "error", err)
	case err == nil && before != nil:
		log.Info("reading from the API server again")
	}
}

// waiting is called with the view's Mu held.
func (s *Store[V]) waiting() string {
	switch {
	case s.isComplete(), s.needed != nil && s.view.becameReady && s.failure == nil:
		return ""
	case s.failure != nil:
		return fmt.Sprintf("reading the %s from the API server: %v", s.what.Resource, s.failure)
	}
	return fmt.Sprintf("reading the %s from the API server", s.what.Resource)
}

// put is called with the view's Mu held.
func (s *Store[V]) put(key service.Key, now *V) []service.Key {
	old, found := s.Items[key]
	var before *V
	if found {
		before = &old
	}
	if now == nil {
		delete(s.Items, key)
	} else {
		s.Items[key] = *now
	}
	if before == nil && now == nil || before != nil && now != nil && reflect.DeepEqual(*before, *now) {
		return nil
	}
	return s.changed(key, before, now)
}

// Add and the methods below implement cache.ReflectorStore.
func (s *Store[V]) Add(o any) error {
	key, now := s.value(o)
	s.view.Mu.Lock()
	keys := s.put(key, &now)
	s.view.Mu.Unlock()
	s.view.tell(s.what.Resource, keys)
	return nil
}

// Update is Add: what changed is found by comparison.
func (s *Store[V]) Update(o any) error { return s.Add(o) }

// Delete forgets an object.
func (s *Store[V]) Delete(o any) error {
	key, _ := s.value(o)
	s.view.Mu.Lock()
	keys := s.put(key, nil)
	s.view.Mu.Unlock()
	s.view.tell(s.what.Resource, keys)
	return nil
}

// Replace starts over from a complete list.
func (s *Store[V]) Replace(list []any, _ string) error {
	s.replace(list, true)
	return nil
}

func (s *Store[V]) replace(list []any, whole bool) {
	s.view.Mu.Lock()
	var keys []service.Key
	here := make(map[service.Key]bool, len(list))
	for _, o := range list {
		key, now := s.value(o)
		here[key] = true
		keys = append(keys, s.put(key, &now)...)
	}
	for key := range s.Items {
		if !here[key] {
			keys = append(keys, s.put(key, nil)...)
		}
	}
	s.whole, s.failure = whole, nil
	s.view.Mu.Unlock()
	s.view.tell(s.what.Resource, keys)
}

// Resync has nothing to do: nobody queues behind this store.
func (s *Store[V]) Resync() error { return nil }
