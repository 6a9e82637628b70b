// Package host knows the machine a cluster runs on. In: nothing but the machine.
// Out: what is missing, each with its fix, and the Debian packages it installs
// when asked. It refuses machines whose kernel lacks what nodes need; it never
// starts a service.
package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/thread"
)

// Check returns an error for everything a cluster of so many nodes needs and
// this machine lacks; each is one line that names the fix.
func Check(nodes int) error {
	if os.Geteuid() != 0 {
		return errors.New("root is missing: run this as root (sudo), it makes namespaces and mounts")
	}
	var errs []error
	if filesystemMissing("overlay") {
		errs = append(errs, errors.New("kernel feature overlayfs is missing: load it (modprobe overlay) or use a kernel with CONFIG_OVERLAY_FS"))
	}
	errs = append(errs, thread.Discard(probeNetwork), checkInotify(nodes))
	return errors.Join(errs...)
}

func filesystemMissing(name string) bool {
	known := func() bool {
		b, err := os.ReadFile("/proc/filesystems")
		return err == nil && strings.Contains(string(b), "\t"+name+"\n")
	}
	if known() {
		return false
	}
	_ = exec.Command("modprobe", name).Run() // where modules are files; the second look decides
	return !known()
}

// probeNetwork makes one device of each kind in a scratch network namespace, in
// which it leaves its thread.
func probeNetwork() error {
	ns, err := netns.New()
	if err != nil {
		return fmt.Errorf("kernel feature network namespaces is missing (%w): use a kernel with CONFIG_NET_NS, outside of a restricted container", err)
	}
	defer func() { _ = ns.Close() }()
	var errs []error
	for _, kind := range []struct {
		link   netlink.Link
		option string
	}{
		{&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "probe-veth"}, PeerName: "probe-peer"}, "CONFIG_VETH"},
		{&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "probe-bridge"}}, "CONFIG_BRIDGE"},
		{&netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "probe-vxlan"}, VxlanId: 1, Port: 8472}, "CONFIG_VXLAN"},
	} {
		if err := netlink.LinkAdd(kind.link); err != nil {
			errs = append(errs, fmt.Errorf("kernel feature %s is missing (%w): use a kernel with %s", kind.link.Type(), err, kind.option))
		}
	}
	conn, err := nftables.New(nftables.WithNetNSFd(int(ns)))
	if err == nil {
		for _, family := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyBridge} {
			conn.AddTable(&nftables.Table{Name: "probe", Family: family})
		}
		err = conn.Flush()
	}
	if err != nil {
		errs = append(errs, fmt.Errorf("kernel feature nf_tables is missing (%w): use a kernel with CONFIG_NF_TABLES, _INET and _BRIDGE", err))
	}
	return errors.Join(errs...)
}

// checkInotify: a kubelet holds 6 instances and containerd 1, of one limit for
// the whole machine; a kubelet that gets none exits.
func checkInotify(nodes int) error {
	const file = "/proc/sys/fs/inotify/max_user_instances"
	b, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("kernel feature inotify is missing (%w): use a kernel with CONFIG_INOTIFY_USER", err)
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if want := 8*nodes + 32; limit < want {
		return fmt.Errorf("inotify instances are too few for %d nodes (%d, want %d): sysctl -w fs.inotify.max_user_instances=2048", nodes, limit, want)
	}
	return nil
}

// AppArmor says whether containers can be given AppArmor profiles here.
func AppArmor() bool {
	b, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || !strings.HasPrefix(string(b), "Y") {
		return false
	}
	_, err = exec.LookPath("apparmor_parser")
	return err == nil
}

// missingPrograms returns the packages of the programs that are not there.
func missingPrograms(wanted map[string]string) []string {
	var packages []string
	for program, pkg := range wanted {
		if Program(program) == "" {
			packages = append(packages, pkg)
		}
	}
	return packages
}

// Program returns the path of a program or "".
func Program(name string) string {
	if filepath.IsAbs(name) {
		if unix.Access(name, unix.X_OK) == nil {
			return name
		}
		return ""
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if path := filepath.Join(dir, name); unix.Access(path, unix.X_OK) == nil {
			return path
		}
	}
	return ""
}

// Go refuses a machine without a Go that builds this project.
func Go(ctx context.Context) (version string, err error) {
	const fix = "install it from https://go.dev/dl and put it in PATH"
	if _, err := exec.LookPath("go"); err != nil {
		return "", errors.New("missing Go 1.26: " + fix)
	}
	cmd := exec.CommandContext(ctx, "go", "env", "GOVERSION")
	cmd.Dir = "/" // no go.mod that would switch toolchains
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("missing Go 1.26: go env fails (%w): %s", err, fix)
	}
	version = strings.TrimSpace(string(out))
	if !AtLeast(version, 1, 26) {
		return "", fmt.Errorf("missing Go 1.26: PATH has %s: %s", version, fix)
	}
	return version, nil
}

// AtLeast compares a version as Go spells it ("go1.26.8") with a minimum.
func AtLeast(version string, major, minor int) bool {
	var gotMajor, gotMinor int
	if _, err := fmt.Sscanf(version, "go%d.%d", &gotMajor, &gotMinor); err != nil {
		return false
	}
	return gotMajor > major || gotMajor == major && gotMinor >= minor
}
