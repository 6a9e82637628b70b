package wire

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Index is the index of the link of that name; 0 if there is none. It takes
// no lock of the kernel's, and less than a request over netlink.
func Index(link string) (int, error) {
	request, err := unix.NewIfreq(link)
	if err != nil {
		return 0, nil // no link can have such a name
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if errors.Is(err, unix.EAFNOSUPPORT) {
		fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	}
	if err != nil {
		return 0, fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	switch err := unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, request); {
	case errors.Is(err, unix.ENODEV):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("find link %s: %w", link, err)
	}
	return int(request.Uint32()), nil
}
