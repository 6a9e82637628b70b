// Package thread runs what changes the namespaces of its thread. In: a function.
// Out: its error, and a thread less. It refuses the main thread: Go cannot end
// that one, and /proc/self is its view of the machine.
package thread

import (
	"errors"
	"fmt"
	"os"
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

// In runs do on a thread inside the network namespace that a file names, and
// discards the thread. Sockets that do opens stay in the namespace.
func In(path string, do func() error) error {
	return Discard(func() error {
		f, err := os.Open(path)
		if err != nil {
			return fmt.Errorf("enter network namespace: %w", err)
		}
		defer func() { _ = f.Close() }()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter network namespace %s: %w", path, err)
		}
		return do()
	})
}
