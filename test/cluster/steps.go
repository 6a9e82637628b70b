package cluster

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// steps says what is being done, and how long each step took. Steps run at the
// same time, hence a line is written when one ends, or takes long.
type steps struct {
	mu  sync.Mutex
	out io.Writer
}

const longStep = 10 * time.Second

func (s *steps) do(what string, step func() error) error {
	start := time.Now()
	long := time.AfterFunc(longStep, func() { s.line(time.Since(start), what+" ...") })
	err := step()
	long.Stop()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	s.line(time.Since(start), what)
	return nil
}

func (s *steps) line(took time.Duration, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "%6.1fs  %s\n", took.Seconds(), what)
}

func (s *steps) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "         "+format+"\n", args...)
}
