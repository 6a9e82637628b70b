package daemon

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"poplin.dev/poplin/pkg/metrics"
)

// TestContact: the API server is away once everything that is asked for fails,
// and since the last of it did.
func TestContact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newContact(metrics.New())
		away := errors.New("connection refused")
		if at, _ := c.since(); !at.IsZero() {
			t.Errorf("before anything was asked: away since %v", at)
		}
		c.Requested("services", nil)
		c.Requested("pods", away)
		if at, _ := c.since(); !at.IsZero() {
			t.Errorf("one of two answers: away since %v", at)
		}
		time.Sleep(time.Minute)
		want := time.Now()
		c.Requested("services", away)
		time.Sleep(time.Minute)
		c.Requested("services", away) // again, and still
		if at, why := c.since(); !at.Equal(want) || !errors.Is(why, away) {
			t.Errorf("away since %v, %v; want %v", at, why, want)
		}
		c.Requested("pods", nil)
		if at, _ := c.since(); !at.IsZero() {
			t.Errorf("it answers again: away since %v", at)
		}
	})
}
