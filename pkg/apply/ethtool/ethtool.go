// Package ethtool reads and sets what a network device computes in place of
// the CPU. In: the name of a device in the calling thread's network namespace;
// out: whether it takes checksums of what it sends upon itself. It refuses to
// know what the device is for.
package ethtool

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// value is struct ethtool_value, what the kernel's older commands take.
type value struct{ command, data uint32 }

// request is struct ifreq with a pointer; the kernel copies its whole union.
type request struct {
	name [unix.IFNAMSIZ]byte
	data *value
	_    [16]byte
}

// TxChecksum reports whether the device fills in transport checksums of what it
// sends, or promises that another one further on will.
func TxChecksum(device string) (on bool, err error) {
	v := value{command: unix.ETHTOOL_GTXCSUM}
	if err := do(device, &v); err != nil {
		return false, fmt.Errorf("read transmit checksum offload of %s: %w", device, err)
	}
	return v.data != 0, nil
}

// SetTxChecksum has the device do so, or the CPU before the device sees a
// packet. Segmentation offload comes and goes with it.
func SetTxChecksum(device string, on bool) error {
	v := value{command: unix.ETHTOOL_STXCSUM}
	if on {
		v.data = 1
	}
	if err := do(device, &v); err != nil {
		return fmt.Errorf("set transmit checksum offload of %s: %w", device, err)
	}
	return nil
}

func do(device string, v *value) error {
	if len(device) >= unix.IFNAMSIZ {
		return unix.ENODEV
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	r := request{data: v}
	copy(r.name[:], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return errno
	}
	return nil
}
