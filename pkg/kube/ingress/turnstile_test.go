package ingress

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slow answers after a second, and counts who waits meanwhile.
type slow struct{ now, most, all atomic.Int32 }

func (s *slow) RoundTrip(*http.Request) (*http.Response, error) {
	s.most.Store(max(s.most.Load(), s.now.Add(1)))
	s.all.Add(1)
	time.Sleep(time.Second)
	s.now.Add(-1)
	return &http.Response{}, nil
}

func TestTurnstile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &slow{}
		through := &turnstile{server, make(chan struct{}, atOnce)}
		ask := func(ctx context.Context) error {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://server/", nil)
			if err == nil {
				_, err = through.RoundTrip(r)
			}
			return err
		}
		var asking sync.WaitGroup
		for range 10 * atOnce {
			asking.Go(func() {
				if err := ask(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		hasty, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := ask(hasty); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who cannot wait gets %v", err)
		}
		asking.Wait()
		if most, all := server.most.Load(), server.all.Load(); most != atOnce || all != 10*atOnce {
			t.Errorf("%d requests, %d at once, want %d", all, most, atOnce)
		}
	})
}
