// Package thread runs what changes the namespaces of its thread. In: a function.
// Out: its error, and a thread less. It refuses the main thread: Go cannot end
// that one, and /proc/self is its view of the machine.
package thread

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// errNoReturn: do ended its goroutine, as a test's FailNow does.
var errNoReturn = errors.New("the function did not return")

// Discard runs do on a thread of its own, which ends with it, and with it
// whatever namespaces it has entered.
func Discard(do func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// While the main thread is held here, another goroutine gets another.
			defer runtime.UnlockOSThread()
			done <- Discard(do)
			return
		}
		err := errNoReturn
		defer func() { done <- err }()
		err = do() // never unlocked: the thread ends with the goroutine
	}()
	return <-done
}
