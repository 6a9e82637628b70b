package query

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// patience is with a daemon that hangs.
	patience = 500 * time.Millisecond
	// longer is with what it knows of a large cluster.
	longer = 2 * time.Second
)

// tell asks the daemon something, unless it was silent before: a process that is
// stopped takes connections and never answers, and a person waits for each of
// them.
func tell[T any](ctx context.Context, p Places, limit time.Duration, ask func(ctx context.Context, socket string) (T, error)) (answer T, err error) {
	if p.Silent.Load() {
		return answer, fmt.Errorf("ask the daemon of this node: it hangs, it did not answer in %v", patience)
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer, err = ask(ctx, p.Socket)
	if errors.Is(err, context.DeadlineExceeded) {
		p.Silent.Store(true)
	}
	return answer, err
}
