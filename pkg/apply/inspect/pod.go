package inspect

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/foreign"
	"poplin.dev/poplin/pkg/facts"
)

// ErrAccess says that this process may not enter pods' namespaces.
var ErrAccess = errors.New("needs node access: trace.podInspection, or poplinctl with --node on the node")

// Inside reads a pod's namespace: its network, and the rules in it.
func Inside(path string, o Options) (n *facts.Network, chains []facts.Chain, err error) {
	err = In(path, func() (err error) {
		n, err = Network(o)
		var errRules error
		chains, errRules = foreign.Chains("")
		return errors.Join(err, errRules)
	})
	return n, chains, err
}

// In does something in a pod's namespace: sockets that it opens stay there.
func In(path string, do func() error) (err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the thread ends with the goroutine, so that no
		// other one finds itself in a pod.
		runtime.LockOSThread()
		ns, errOpen := netns.GetFromPath(path)
		if errOpen != nil {
			err = denied(fmt.Errorf("open network namespace %s: %w", path, errOpen))
			return
		}
		defer ns.Close()
		if errEnter := netns.Set(ns); errEnter != nil {
			err = denied(fmt.Errorf("enter network namespace %s: %w", path, errEnter))
			return
		}
		err = do()
	}()
	<-done
	return err
}

func denied(err error) error {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("%w (%w)", ErrAccess, err)
	}
	return err
}
