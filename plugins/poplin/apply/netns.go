package apply

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// NamespaceError says that a path is no network namespace for a pod.
type NamespaceError struct{ Path, Why string }

func (e *NamespaceError) Error() string { return fmt.Sprintf("%q %s", e.Path, e.Why) }

// namespace is an open network namespace. It is no os.File, which would ask
// the poller about it first.
type namespace int

func (ns namespace) close() { unix.Close(int(ns)) }

// openNamespace opens a pod's network namespace.
func openNamespace(path string) (namespace, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, &NamespaceError{path, "cannot be opened: " + err.Error()}
	}
	ns := namespace(fd)
	kind, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE) // 4.11
	if err != nil || kind != unix.CLONE_NEWNET {
		ns.close()
		return -1, &NamespaceError{path, "is no network namespace"}
	}
	var pod, own unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &pod), unix.Stat(ownNamespace, &own)); err != nil {
		ns.close()
		return -1, fmt.Errorf("compare network namespaces: %w", err)
	}
	if pod.Dev == own.Dev && pod.Ino == own.Ino {
		ns.close()
		return -1, &NamespaceError{path, "is the host's own network namespace; a pod of the host's network needs no CNI"}
	}
	return ns, nil
}

const ownNamespace = "/proc/thread-self/ns/net"

// within runs work on a thread in namespace ns.
//
// The thread must come back. Were the goroutine ended in ns on the process'
// first thread, which Go never ends, that thread would hold the namespace
// and /proc/self would show it; so failing to come back is fatal.
func within(ns namespace, work func() error) error {
	runtime.LockOSThread()
	own, err := unix.Open(ownNamespace, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("open own network namespace: %w", err)
	}
	defer unix.Close(own)
	if err := unix.Setns(int(ns), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the pod's network namespace: %w", err)
	}
	err = work()
	if back := unix.Setns(own, unix.CLONE_NEWNET); back != nil {
		// Still locked: no other goroutine shall run in the pod's namespace.
		return errors.Join(err, fmt.Errorf("return to the host's network namespace: %w", back))
	}
	runtime.UnlockOSThread()
	return err
}
