package need

import (
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// scratch moves this thread into a new network namespace for good: the
// goroutine stays locked, so that its thread dies with it.
func scratch() (netns.NsHandle, *netlink.Handle, error) {
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		return ns, nil, err
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		ns.Close()
		return ns, nil, err
	}
	return ns, h, nil
}
