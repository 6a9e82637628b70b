package loop

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const (
	holdOff  = 100 * time.Millisecond
	maxDelay = time.Second
)

func TestQueueFirstAtOnceThenHeldOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue[string](holdOff, maxDelay)
		start := time.Now()
		q.Add("a")
		if got := q.Get(t.Context()); !slices.Equal(got, []string{"a"}) || time.Since(start) != 0 {
			t.Fatalf("first: %v after %v", got, time.Since(start))
		}
		time.AfterFunc(10*time.Millisecond, func() { q.Add("b", "c", "b") })
		time.AfterFunc(60*time.Millisecond, func() { q.Add("c", "d") })
		got := q.Get(t.Context())
		if !slices.Equal(got, []string{"b", "c", "d"}) || time.Since(start) != 160*time.Millisecond {
			t.Fatalf("burst: %v after %v", got, time.Since(start))
		}
		time.Sleep(holdOff)
		start = time.Now()
		q.Add("e")
		if got := q.Get(t.Context()); !slices.Equal(got, []string{"e"}) || time.Since(start) != 0 {
			t.Fatalf("after a quiet time: %v after %v", got, time.Since(start))
		}
	})
}

func TestQueueSteadyStreamIsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		q := NewQueue[int](holdOff, maxDelay)
		go func() {
			// Not a sleep: a bubble's clock stops when its first goroutine ends.
			tick := time.NewTicker(holdOff / 2)
			defer tick.Stop()
			for i := 0; ; i++ {
				q.Add(i)
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
			}
		}()
		q.Get(ctx)
		start := time.Now()
		q.Get(ctx)
		if d := time.Since(start); d < maxDelay || d > maxDelay+holdOff {
			t.Fatalf("second batch after %v, want about %v", d, maxDelay)
		}
	})
}

func TestQueueHurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := NewQueue[string](holdOff, maxDelay)
		start := time.Now()
		q.Add("a")
		q.Get(t.Context())
		q.Add("b", "c")
		time.AfterFunc(holdOff/2, func() { q.Hurry("c") })
		if got := q.Get(t.Context()); !slices.Equal(got, []string{"b", "c"}) || time.Since(start) != holdOff/2 {
			t.Errorf("what somebody waits for: %v after %v", got, time.Since(start))
		}
		start = time.Now()
		q.Add("d")
		if got := q.Get(t.Context()); !slices.Equal(got, []string{"d"}) || time.Since(start) != holdOff {
			t.Errorf("what nobody waits for: %v after %v", got, time.Since(start))
		}
	})
}

func TestQueueEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if got := NewQueue[int](holdOff, maxDelay).Get(ctx); got != nil {
			t.Fatalf("got %v", got)
		}
	})
}

func TestWorkerRetriesAndLogsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var log bytes.Buffer
		var times []time.Duration
		start := time.Now()
		q := NewQueue[string](holdOff, maxDelay)
		w := &Worker[string]{
			Name: "test", Queue: q, Backoff: Backoff{Min: time.Second, Max: 4 * time.Second},
			Log: slog.New(slog.NewTextHandler(&log, nil)),
			Do: func(_ context.Context, keys []string) error {
				times = append(times, time.Since(start))
				if len(times) < 5 {
					return errors.New("no such thing")
				}
				if !slices.Equal(keys, []string{"a"}) {
					t.Errorf("keys %v", keys)
				}
				stop()
				return nil
			},
		}
		q.Add("a")
		if err := w.Run(ctx); err != nil {
			t.Fatal(err)
		}
		for i, base := range []time.Duration{0, 1, 2, 4, 4} {
			if i == 0 {
				continue
			}
			gap := times[i] - times[i-1]
			if gap < base*time.Second*3/4 || gap > base*time.Second+holdOff {
				t.Errorf("attempt %d after %v, want about %v s", i, gap, base)
			}
		}
		if n := strings.Count(log.String(), "no such thing"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, log.String())
		}
	})
}

func TestWorkerTakesFailedKeysAlongWithNewOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		q := NewQueue[string](holdOff, maxDelay)
		var second []string
		start := time.Now()
		w := &Worker[string]{
			Name: "test", Queue: q, Backoff: Backoff{Min: time.Hour, Max: time.Hour}, Log: slog.New(slog.DiscardHandler),
			Do: func(_ context.Context, keys []string) error {
				if time.Since(start) == 0 {
					time.AfterFunc(time.Second, func() { q.Add("b") })
					return errors.New("not yet")
				}
				second = slices.Clone(keys)
				stop()
				return nil
			},
		}
		q.Add("a")
		w.Run(ctx)
		if !slices.Equal(second, []string{"b", "a"}) || time.Since(start) > time.Minute {
			t.Errorf("second pass %v after %v", second, time.Since(start))
		}
	})
}

func TestWorkerDoesAgainPeriodically(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithTimeout(t.Context(), 10*time.Minute+time.Second)
		defer stop()
		passes := 0
		w := &Worker[string]{
			Name: "test", Queue: NewQueue[string](holdOff, maxDelay), Every: time.Minute, Again: "all", Log: slog.New(slog.DiscardHandler),
			Do: func(context.Context, []string) error { passes++; return nil },
		}
		w.Run(ctx)
		if passes < 9 || passes > 11 {
			t.Errorf("%d passes in 10 minutes", passes)
		}
	})
}

type task struct {
	name  string
	run   func(context.Context) error
	ready *Ready
}

func (t task) Run(ctx context.Context) error { return t.run(ctx) }
func (t task) Ready() <-chan struct{}        { return t.ready.Done() }
func (t task) String() string                { return t.name }

func TestGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var order []string
		until := func(name string, fail error, after time.Duration) Task {
			return task{name: name, ready: NewReady(), run: func(ctx context.Context) error {
				if fail != nil {
					time.Sleep(after)
					return fail
				}
				<-ctx.Done()
				order = append(order, name)
				return nil
			}}
		}
		log := slog.New(slog.DiscardHandler)
		ctx, stop := context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if err := Group(ctx, log, until("a", nil, 0), until("b", nil, 0), until("c", nil, 0)); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if !slices.Equal(order, []string{"c", "b", "a"}) {
			t.Errorf("stopped in order %v", order)
		}
		cause := errors.New("disk on fire")
		err := Group(t.Context(), log, until("a", nil, 0), until("b", cause, time.Second))
		if !errors.Is(err, cause) || !strings.HasPrefix(err.Error(), "run b:") {
			t.Errorf("failure: %v", err)
		}
		// One that hangs holds nobody up.
		forever := make(chan struct{})
		defer close(forever)
		hangs := task{name: "b", ready: NewReady(), run: func(context.Context) error { <-forever; return nil }}
		ctx, stop = context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		start := time.Now()
		err = Group(ctx, log, until("a", nil, 0), hangs, until("c", nil, 0))
		if err == nil || !strings.HasPrefix(err.Error(), "stop b:") || time.Since(start) != time.Minute+patience {
			t.Errorf("a task hangs: %v after %v", err, time.Since(start))
		}
		// One that has something to finish gets its time.
		finished := false
		drains := slow{task{name: "b", ready: NewReady(), run: func(ctx context.Context) error {
			<-ctx.Done()
			time.Sleep(30 * time.Second)
			finished = true
			return nil
		}}}
		ctx, stop = context.WithTimeout(t.Context(), time.Minute)
		defer stop()
		if err := Group(ctx, log, until("a", nil, 0), drains); err != nil || !finished {
			t.Errorf("a task drains: %v, finished %v", err, finished)
		}
	})
}

type slow struct{ task }

func (slow) Ending() time.Duration { return 30 * time.Second }

func TestReady(t *testing.T) {
	r := NewReady()
	select {
	case <-r.Done():
		t.Error("ready at once")
	default:
	}
	r.Set()
	r.Set()
	<-r.Done()
}
