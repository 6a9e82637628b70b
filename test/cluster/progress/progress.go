// Package progress says what a long command is doing. In: steps, which may run at
// the same time. Out: a line when one ends, with the time it took, or when it
// takes long. It refuses nothing.
package progress

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Steps writes a line for each step.
type Steps struct {
	mu  sync.Mutex
	out io.Writer
}

// New writes to out.
func New(out io.Writer) *Steps { return &Steps{out: out} }

const longStep = 15 * time.Second

// Do runs a step.
func (s *Steps) Do(what string, step func() error) error {
	start := time.Now()
	done := make(chan struct{})
	go func() {
		for long := time.Tick(longStep); ; {
			select {
			case <-done:
				return
			case <-long:
				s.Line(time.Since(start), what+" ...")
			}
		}
	}()
	err := step()
	close(done)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	s.Line(time.Since(start), what)
	return nil
}

// Line writes what took how long.
func (s *Steps) Line(took time.Duration, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "%6.1fs  %s\n", took.Seconds(), what)
}

// Say writes what is no step.
func (s *Steps) Say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "         "+format+"\n", args...)
}
