package underlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/thread"
)

// directory is where `ip netns` looks, so that it works on our namespaces.
const directory = "/run/netns"

// Path is the file that keeps a named network namespace.
func Path(namespace string) string { return filepath.Join(directory, namespace) }

// create makes a named network namespace.
func create(name string) error {
	if err := thread.Discard(func() error {
		ns, err := netns.NewNamed(name)
		if err != nil {
			return err
		}
		return ns.Close()
	}); err != nil {
		return fmt.Errorf("make network namespace %s: %w", name, err)
	}
	return nil
}

// within runs do on a thread inside a namespace, so that /proc/sys/net is that
// namespace's too.
func within(name string, do func(*netlink.Handle) error) error {
	if err := thread.Discard(func() error { return enter(name, do) }); err != nil {
		return fmt.Errorf("network namespace %s: %w", name, err)
	}
	return nil
}

func enter(name string, do func(*netlink.Handle) error) error {
	ns, err := netns.GetFromPath(Path(name))
	if err != nil {
		return err
	}
	defer func() { _ = ns.Close() }()
	if err := netns.Set(ns); err != nil {
		return err
	}
	h, err := netlink.NewHandle()
	if err != nil {
		return err
	}
	defer h.Close()
	return do(h)
}

// Dial opens a connection from within a namespace.
func Dial(ctx context.Context, namespace, network, address string) (conn net.Conn, err error) {
	err = within(namespace, func(*netlink.Handle) error {
		// Racing families would make the socket on another goroutine's thread.
		d := net.Dialer{FallbackDelay: -1}
		conn, err = d.DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// sysctl writes a setting of the namespace that the thread is in. One that this
// kernel does not have needs no change.
func sysctl(name, value string) error {
	err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set net/%s to %s: %w", name, value, err)
	}
	return nil
}

// forbid drops whatever is to or from the prefixes. It runs inside the namespace.
func forbid(namespace, family string, prefixes []netip.Prefix) error {
	if len(prefixes) == 0 {
		return nil
	}
	cmd := exec.Command("nsenter", "--net="+Path(namespace), "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules(family, prefixes))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("forbid pods' packets: nft: %w: %s", err, out)
	}
	return nil
}

// rules is the nftables ruleset of forbid. Prerouting is before the choice of a
// port, hence sees what is for the gateway, too.
func rules(family string, prefixes []netip.Prefix) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s forbidden {\n", family)
	for _, hook := range []string{"prerouting", "output"} {
		fmt.Fprintf(&b, " chain %s {\n  type filter hook %s priority -300; policy accept;\n", hook, hook)
		for _, prefix := range prefixes {
			ip := "ip"
			if prefix.Addr().Is6() {
				ip = "ip6"
			}
			fmt.Fprintf(&b, "  %s saddr %s counter drop\n  %s daddr %s counter drop\n", ip, prefix, ip, prefix)
		}
		b.WriteString(" }\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// Remove removes a named namespace. One that is not there is fine, and so is one
// whose maker died half way.
func Remove(name string) error {
	path := Path(name)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove network namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove network namespace %s: %w", name, err)
	}
	return nil
}

// Names lists the named namespaces of this machine.
func Names() ([]string, error) {
	entries, err := os.ReadDir(directory)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list network namespaces: %w", err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names, nil
}
