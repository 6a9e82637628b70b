package loop

import (
	"context"
	"sync"
	"time"
)

// Queue gathers dirty keys. The first key after a quiet time is handed out
// at once; those that follow wait until HoldOff has passed without another
// one, so that a burst costs one pass, but never longer than MaxDelay, so
// that a steady stream does not starve the worker. What somebody waits for is
// handed out at once too, and what waits with it.
type Queue[K comparable] struct {
	holdOff, maxDelay time.Duration
	wake              chan struct{}

	mu    sync.Mutex     // guards the following
	keys  []K            // in the order in which they came
	known map[K]struct{} // the same keys
	first time.Time      // when the oldest waiting key came
	last  time.Time      // when the youngest came
	given time.Time      // when keys were last handed out
	hurry bool           // somebody waits for one of the keys
}

// NewQueue makes an empty queue.
func NewQueue[K comparable](holdOff, maxDelay time.Duration) *Queue[K] {
	return &Queue[K]{holdOff: holdOff, maxDelay: maxDelay, wake: make(chan struct{}, 1), known: map[K]struct{}{}}
}

// Add marks keys dirty; a key that waits already is not added twice. It never blocks.
func (q *Queue[K]) Add(keys ...K) { q.add(false, keys) }

// Hurry marks keys dirty that somebody waits for.
func (q *Queue[K]) Hurry(keys ...K) { q.add(true, keys) }

func (q *Queue[K]) add(hurry bool, keys []K) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hurry = q.hurry || hurry
	now := time.Now()
	for _, k := range keys {
		if _, ok := q.known[k]; ok {
			continue
		}
		q.known[k] = struct{}{}
		if len(q.keys) == 0 {
			q.first = now
		}
		q.keys = append(q.keys, k)
	}
	q.last = now
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Get waits for keys and takes all of them; none means that ctx ended.
func (q *Queue[K]) Get(ctx context.Context) []K {
	for ctx.Err() == nil {
		keys, wait := q.take()
		if keys != nil {
			return keys
		}
		var due <-chan time.Time
		if wait > 0 {
			due = time.After(wait)
		}
		select {
		case <-ctx.Done():
		case <-q.wake:
		case <-due:
		}
	}
	return nil
}

// take returns the keys if they are due, or how long until they are; 0 without keys.
func (q *Queue[K]) take() ([]K, time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.keys) == 0 {
		return nil, 0
	}
	now := time.Now()
	quiet := q.first.Sub(q.given) >= q.holdOff
	if due := earlier(q.last.Add(q.holdOff), q.first.Add(q.maxDelay)); !quiet && !q.hurry && now.Before(due) {
		return nil, due.Sub(now)
	}
	keys := q.keys
	q.keys, q.given, q.hurry = nil, now, false
	clear(q.known)
	return keys, 0
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
