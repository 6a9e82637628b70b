package apply

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// NamespaceError says that a path is no network namespace for a pod.
type NamespaceError struct{ Path, Why string }

func (e *NamespaceError) Error() string { return fmt.Sprintf("%q %s", e.Path, e.Why) }

// openNamespace opens a pod's network namespace.
func openNamespace(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &NamespaceError{path, "cannot be opened: " + errors.Unwrap(err).Error()}
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE) // 4.11
	if err != nil || kind != unix.CLONE_NEWNET {
		f.Close()
		return nil, &NamespaceError{path, "is no network namespace"}
	}
	var pod, own unix.Stat_t
	if err := errors.Join(unix.Fstat(int(f.Fd()), &pod), unix.Stat("/proc/thread-self/ns/net", &own)); err != nil {
		f.Close()
		return nil, fmt.Errorf("compare network namespaces: %w", err)
	}
	if pod.Dev == own.Dev && pod.Ino == own.Ino {
		f.Close()
		return nil, &NamespaceError{path, "is the host's own network namespace; a pod of the host's network needs no CNI"}
	}
	return f, nil
}

// within runs work on a thread in namespace ns.
//
// The thread must come back. Were the goroutine ended in ns on the process'
// first thread, which Go never ends, that thread would hold the namespace
// and /proc/self would show it; so failing to come back is fatal.
func within(ns *os.File, work func() error) error {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer own.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the pod's network namespace: %w", err)
	}
	err = work()
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		// Still locked: no other goroutine shall run in the pod's namespace.
		return errors.Join(err, fmt.Errorf("return to the host's network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}
