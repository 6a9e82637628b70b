package loop

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Backoff is the delay between attempts: it doubles from Min to Max, each
// with up to a quarter taken off at random, so that the nodes of a cluster do
// not come back in step.
type Backoff struct {
	Min, Max time.Duration
	attempts int
}

// Next is how long to wait now.
func (b *Backoff) Next() time.Duration {
	d := b.Min << min(b.attempts, 32)
	if d <= 0 || d > b.Max {
		d = b.Max
	}
	b.attempts++
	return d - rand.N(d/4+1)
}

// Reset starts over after a success.
func (b *Backoff) Reset() { b.attempts = 0 }

// Worker does work for the dirty keys of a queue, on one goroutine, and is
// the one judge of retries: an error is logged once, until it changes or
// goes, and its keys are tried again after the back-off, or with the next
// keys, whichever comes first.
type Worker[K comparable] struct {
	Name    string
	Queue   *Queue[K]
	Do      func(context.Context, []K) error
	Backoff Backoff
	// Every, if not zero, marks Again dirty that often, give or take a tenth.
	Every time.Duration
	Again K
	// Beside, if any, run on goroutines of their own as long as the worker.
	Beside []func(context.Context)
	Log    *slog.Logger
}

// Run works until ctx ends.
func (w *Worker[K]) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	var beside sync.WaitGroup
	defer beside.Wait()
	defer stop()
	if w.Every > 0 {
		beside.Go(func() { w.tick(ctx) })
	}
	for _, f := range w.Beside {
		beside.Go(func() { f(ctx) })
	}
	var (
		failed []K    // keys to try again
		logged string // the error that was logged for them
		retry  *time.Timer
	)
	for {
		keys := w.Queue.Get(ctx)
		if retry != nil {
			retry.Stop()
		}
		if keys == nil {
			return nil
		}
		keys = union(keys, failed)
		end := begin(ctx, w.Name)
		err := w.Do(ctx, keys)
		end()
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			if logged != "" {
				w.Log.Info("works again", "task", w.Name)
			}
			failed, logged = nil, ""
			w.Backoff.Reset()
		default:
			delay := w.Backoff.Next()
			if text := err.Error(); text != logged {
				w.Log.Error("failed, will try again", "task", w.Name, "in", delay.Round(time.Millisecond), "error", err)
				logged = text
			}
			failed = keys
			retry = time.AfterFunc(delay, func() { w.Queue.Add(keys...) })
		}
	}
}

// union appends to a what it lacks of b.
func union[K comparable](a, b []K) []K {
	for _, k := range b {
		if !slices.Contains(a, k) {
			a = append(a, k)
		}
	}
	return a
}

func (w *Worker[K]) tick(ctx context.Context) {
	for {
		tenth := w.Every / 10
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.Every - tenth + rand.N(2*tenth+1)):
			w.Queue.Add(w.Again)
		}
	}
}
