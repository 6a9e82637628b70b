package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/poplin/plan"
)

// setSysctl writes one value in the thread's network namespace. It goes
// without os.File, which would ask the poller about each file first.
func setSysctl(name, value string) error {
	fd, err := unix.Open(root+name, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, []byte(value))
		err = errors.Join(err, unix.Close(fd))
	}
	if err != nil {
		return fmt.Errorf("set sysctl net.%s=%s: %w", strings.ReplaceAll(name, "/", "."), value, err)
	}
	return nil
}

// isSysctl reads before one would write: a sysctl of the whole host may be
// somebody else's to set, and is costly to write.
func isSysctl(name, value string) bool {
	fd, err := unix.Open(root+name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var b [16]byte
	n, err := unix.Read(fd, b[:])
	return err == nil && strings.TrimSpace(string(b[:n])) == value
}

const root = "/proc/sys/net/"

// forward lets the host pass packets on to pods. A daemon may keep the same
// sysctls; this plugin works without one.
func forward(p plan.Plan) error {
	var errs []error
	for _, name := range forwarding(p) {
		if !isSysctl(name, "1") {
			errs = append(errs, setSysctl(name, "1"))
		}
	}
	return errors.Join(errs...)
}

func forwarding(p plan.Plan) (names []string) {
	v4, v6 := families(p)
	if v4 {
		names = append(names, "ipv4/ip_forward")
	}
	if v6 {
		names = append(names, "ipv6/conf/all/forwarding")
	}
	return names
}

// quiet sets the IPv6 sysctls of a link that netlink cannot: it listens to no
// router, and speaks IPv6 if the pod has such an address, whatever the
// namespace's default is. They must stand before the link is up. It reports
// whether the kernel runs IPv6 at all.
func quiet(link string, p plan.Plan) (ipv6 bool, err error) {
	dir := "ipv6/conf/" + link + "/"
	_, v6 := families(p)
	err = setSysctl(dir+"accept_ra", "0")
	if errors.Is(err, fs.ErrNotExist) {
		if v6 {
			return false, fmt.Errorf("this kernel runs without IPv6 (%w): remove the IPv6 range, or boot without ipv6.disable=1", err)
		}
		return false, nil
	}
	// Writing this one takes the lock of all network configuration, and spins
	// while another pod has it.
	if err == nil && v6 && !isSysctl(dir+"disable_ipv6", "0") {
		err = setSysctl(dir+"disable_ipv6", "0")
	}
	return true, err
}

// deaf has the host's end take nothing from a pod that would configure the
// node, whatever the namespace's default is (CVE-2020-10749).
func deaf(link string) error {
	dir := "ipv6/conf/" + link + "/"
	return errors.Join(setSysctl(dir+"accept_redirects", "0"), setSysctl(dir+"autoconf", "0"))
}

func families(p plan.Plan) (v4, v6 bool) {
	for _, a := range p.Addresses {
		v4, v6 = v4 || a.Addr.Is4(), v6 || a.Addr.Is6()
	}
	return v4, v6
}
