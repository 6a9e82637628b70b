package apply

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"poplin.dev/poplin/plugins/poplin/plan"
)

// sysctl writes one value in the thread's network namespace, unless it is
// there already: reading is allowed where writing is not.
func sysctl(name, value string) error {
	path := "/proc/sys/net/" + name
	have, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(have)) == value {
		return nil
	}
	if err == nil {
		err = os.WriteFile(path, []byte(value), 0)
	}
	if err != nil {
		return fmt.Errorf("set sysctl net.%s=%s: %w", strings.ReplaceAll(name, "/", "."), value, err)
	}
	return nil
}

// forward lets the host pass packets on to pods. A daemon may keep the same
// sysctls; this plugin works without one.
func forward(p plan.Plan) error {
	var errs []error
	for _, name := range forwarding(p) {
		errs = append(errs, sysctl(name, "1"))
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
	err = sysctl(dir+"accept_ra", "0")
	if errors.Is(err, fs.ErrNotExist) {
		if v6 {
			return false, fmt.Errorf("this kernel runs without IPv6 (%w): remove the IPv6 range, or boot without ipv6.disable=1", err)
		}
		return false, nil
	}
	if err == nil && v6 {
		err = sysctl(dir+"disable_ipv6", "0")
	}
	return true, err
}

func families(p plan.Plan) (v4, v6 bool) {
	for _, a := range p.Addresses {
		v4, v6 = v4 || a.Addr.Is4(), v6 || a.Addr.Is6()
	}
	return v4, v6
}
