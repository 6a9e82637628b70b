package loop

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

func TestPulse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := NewPulse()
		ctx, stop := context.WithCancel(p.Watch(t.Context()))
		defer stop()
		// Two workers, of which the first hangs in its second pass.
		passes, hang := 0, make(chan struct{})
		for _, w := range []Worker[string]{
			{Name: "hangs", Every: time.Minute, Do: func(context.Context, []string) error {
				if passes++; passes == 2 {
					<-hang
				}
				return nil
			}},
			{Name: "slow", Every: time.Minute, Do: func(context.Context, []string) error {
				time.Sleep(time.Second)
				return nil
			}},
		} {
			w.Queue, w.Log = NewQueue[string](0, 0), slog.New(slog.DiscardHandler)
			w.Queue.Add("")
			go w.Run(ctx)
		}
		time.Sleep(10 * time.Second)
		if name, busy := p.Longest(); name != "" {
			t.Errorf("all rest, and %s is at work for %v", name, busy)
		}
		time.Sleep(2 * time.Minute)
		if name, busy := p.Longest(); name != "hangs" || busy < time.Minute || busy > 2*time.Minute {
			t.Errorf("%q is at work for %v", name, busy)
		}
		close(hang)
		synctest.Wait()
		if name, _ := p.Longest(); name == "hangs" {
			t.Error("it has come back, and still hangs")
		}
	})
}
