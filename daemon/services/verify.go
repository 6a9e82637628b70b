package services

import (
	"context"
	"math/rand/v2"
	"time"

	"poplin.dev/poplin/pkg/program/vip"
	"poplin.dev/poplin/pkg/services"
)

// lookAgain is when what a look found wrong is looked at once more.
const lookAgain = time.Second

// verify looks from time to time whether the kernel holds what a daemon that
// starts now would write, and has everything compiled and written again where
// it does not. It looks beside the passes and changes nothing, so no change
// waits for it, however many Services there are.
func (p *pass) verify(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-p.ready.Done():
	}
	tenth := p.deps.Config.Verify / 10
	for sleep(ctx, p.deps.Config.Verify-tenth+rand.N(2*tenth+1)) {
		if right, err := p.right(ctx); err != nil {
			p.deps.Log.Info("cannot look whether Services are as they should be, will try later", "error", err)
		} else if !right {
			p.queue.Add(key{what: all})
		}
	}
}

// right compares twice where it must: what changes during a look seems to be
// wrong, and is not wrong again.
func (p *pass) right(ctx context.Context) (bool, error) {
	wrong, ok, err := p.wrong()
	if err != nil || wrong.Empty() || !ok {
		return ok, err
	}
	if !sleep(ctx, lookAgain) {
		return true, nil
	}
	still, ok, err := p.wrong()
	return ok && wrong.And(still).Empty(), err
}

// wrong is what a daemon that starts now would change; not ok is something
// else than elements.
func (p *pass) wrong() (c vip.Change, ok bool, err error) {
	held, ok, err := p.eyes.Look()
	node, known := p.currentNode()
	if err != nil || !ok || !known {
		return c, ok, err
	}
	t := services.NewTable(node, held)
	t.SetAll(p.deps.Source.Services(), p.deps.Source.Slices)
	return vip.Diff(held, t.Program()), true, nil
}

// sleep is false if ctx ends before.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
