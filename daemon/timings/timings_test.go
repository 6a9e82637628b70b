package timings

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"poplin.dev/poplin/plugins/poplin"
	"poplin.dev/poplin/plugins/poplin/apply"
)

func TestTimings(t *testing.T) {
	ready := filepath.Join(t.TempDir(), "run", "ready")
	path := poplin.Timings(ready)
	apply.Tell(path, []byte(`{"total": 1}`)) // nobody listens: nothing happens
	type phase struct {
		name string
		took time.Duration
	}
	got := make(chan phase, 10)
	start := func() (stop func()) {
		m := New(Deps{ReadyFile: ready, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
			Report: func(name string, took time.Duration) { got <- phase{name, took} }})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- m.Run(ctx) }()
		<-m.Ready()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	stop := start()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info, err)
	}
	for _, text := range []string{"", "x", `{"total": "1"}`, `{"another": 1, "total": -1}`, `{"links": 1500}`} {
		apply.Tell(path, []byte(text))
	}
	if p := <-got; p != (phase{"links", 1500 * time.Microsecond}) || len(got) > 0 {
		t.Errorf("%v, and %d more", p, len(got))
	}
	stop()

	// The socket that a daemon leaves is no obstacle.
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	defer start()()
	apply.Tell(path, []byte(`{"total": 2}`))
	if p := <-got; p.name != "total" {
		t.Errorf("%v", p)
	}
}
