package loop

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// patience is how long a task that was told to stop is waited for, beyond what a
// Slow one asks for: one that hangs must not keep the program from ending.
const patience = 3 * time.Second

// Group runs tasks until ctx ends or one of them does, then stops the others
// from the last to the first, each waited for before the one it may rely on
// is told. The error is that of the task which ended the group, or of one that
// does not stop.
func Group(ctx context.Context, log *slog.Logger, tasks ...Task) error {
	type running struct {
		stop context.CancelFunc
		done chan struct{}
		err  error
	}
	started := make([]running, len(tasks))
	ended := make(chan int, len(tasks))
	for i, t := range tasks {
		taskCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
		r := &started[i]
		r.stop, r.done = stop, make(chan struct{})
		go func() {
			r.err = t.Run(taskCtx)
			close(r.done)
			ended <- i
		}()
	}
	var cause error
	select {
	case <-ctx.Done():
	case i := <-ended:
		if cause = started[i].err; cause == nil {
			cause = errors.New("it returned before it was told to stop")
		}
		cause = fmt.Errorf("run %s: %w", tasks[i], cause)
	}
	for i := len(tasks) - 1; i >= 0; i-- {
		started[i].stop()
		limit := patience
		if s, ok := tasks[i].(Slow); ok {
			limit += s.Ending()
		}
		var err error
		select {
		case <-started[i].done:
			err = started[i].err
		case <-time.After(limit):
			err = fmt.Errorf("it goes on for %s after it was told to", limit)
		}
		if err != nil && cause == nil {
			cause = fmt.Errorf("stop %s: %w", tasks[i], err)
		}
		log.Debug("task stopped", "task", tasks[i].String())
	}
	return cause
}

// Ready is a Task's readiness: closed at most once, from any goroutine.
type Ready struct {
	once sync.Once
	ch   chan struct{}
}

// NewReady is not ready yet.
func NewReady() *Ready { return &Ready{ch: make(chan struct{})} }

// Set makes it ready for good.
func (r *Ready) Set() { r.once.Do(func() { close(r.ch) }) }

// Done is closed once Set was called.
func (r *Ready) Done() <-chan struct{} { return r.ch }
