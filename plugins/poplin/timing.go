package poplin

import (
	"encoding/json"
	"path/filepath"
	"time"

	"poplin.dev/poplin/plugins/poplin/apply"
)

// Phases of an ADD: the address, the links, the wait for policies while these
// are down, what was asked for beside them, the result; and all of it.
var Phases = []string{"address", "links", "policies", "requests", "result", "total"}

// Timings is the socket on which a daemon hears how long the phases of an ADD
// took. It is beside the file that says whether the node is ready.
func Timings(readyFile string) string {
	return filepath.Join(filepath.Dir(readyFile), "timings.sock")
}

// stopwatch takes the times of an ADD.
type stopwatch struct {
	start, last time.Time
	took        map[string]int64 // in microseconds, by phase
}

func startWatch() *stopwatch {
	now := time.Now()
	return &stopwatch{now, now, make(map[string]int64, len(Phases))}
}

// lap ends a phase, or a part of it.
func (s *stopwatch) lap(phase string) {
	now := time.Now()
	s.took[phase] += now.Sub(s.last).Microseconds()
	s.last = now
}

// around is do as a phase of its own, in the middle of another.
func (s *stopwatch) around(other, phase string, do func() error) func() error {
	return func() error {
		s.lap(other)
		defer s.lap(phase)
		return do()
	}
}

// tell leaves the times with the daemon, if there is one that listens: no ADD
// fails, or waits, because nobody counts.
func (s *stopwatch) tell(readyFile string) {
	if readyFile == "" {
		return
	}
	s.took["total"] = s.last.Sub(s.start).Microseconds()
	if text, err := json.Marshal(s.took); err == nil {
		apply.Tell(Timings(readyFile), text)
	}
}
