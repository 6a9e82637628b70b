// Package loop owns time: long-lived tasks, the queue of dirty keys with its
// hold-off, and the one place where an error is logged and retried. Inputs
// are functions; outputs are their calls, never two of one task at once. It
// refuses to know what the functions do.
package loop

import (
	"context"
	"time"
)

// Task is a long-lived part of a program.
type Task interface {
	// Run works until ctx ends, and returns nil then. An error ends the
	// whole group: what can be retried is retried inside.
	Run(ctx context.Context) error
	// Ready is closed once the task does its job for the first time.
	Ready() <-chan struct{}
	// String is the task's name in logs and in /readyz.
	String() string
}

// Slow is a Task that has something to finish when it is told to stop.
type Slow interface {
	Task
	// Ending is how long that may take.
	Ending() time.Duration
}
