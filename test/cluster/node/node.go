// Package node makes the inside of a node: a mount and a UTS namespace in which
// the standard paths (/var, /run, /opt, /etc, /sys) are the node's own, so that
// unmodified programs and DaemonSets find what they find on a real machine. In:
// the node's name, its network namespace and a directory that is its disk. Out:
// an anchor process that keeps the namespaces; nothing appears in the machine's
// own mounts, and all is gone with the last process in there. It refuses to
// share a directory that is not there.
package node

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/thread"
)

// Config is one node.
type Config struct {
	Name       string
	Cluster    string
	Namespace  string // file of its network namespace
	Disk       string // directory that survives a power cycle
	Hosts      string // content of /etc/hosts
	Nameserver string
	// Share are directories of this machine that the node sees under the same
	// path, whatever else it sees there.
	Share []string
	// CNIPlugins is a directory whose programs appear in /opt/cni/bin, as they
	// do where kubernetes-cni is installed.
	CNIPlugins string
}

// Boot makes the namespaces on a thread of its own and calls anchor there: the
// process that anchor starts is born inside and keeps them.
func Boot(c Config, anchor func() error) error {
	if err := thread.Discard(func() error { return c.boot(anchor) }); err != nil {
		return fmt.Errorf("boot %s: %w", c.Name, err)
	}
	return nil
}

func (c Config) boot(anchor func() error) error {
	if err := enterNetwork(c.Namespace); err != nil {
		return err
	}
	// CLONE_FS: a thread may change its mount namespace only when it shares its
	// root and working directory with no other (setns(2)).
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	// From here on everything is private: what is moved or unmounted below must
	// not reach the machine.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	for _, step := range []func() error{detachForeign, c.mounts, c.files, c.settings} {
		if err := step(); err != nil {
			return err
		}
	}
	if err := unix.Sethostname([]byte(c.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	// The kubelet needs shared mounts to pass them on to pods.
	if err := mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return err
	}
	return anchor()
}

func enterNetwork(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", path, err)
	}
	return nil
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s: %w", target, err)
	}
	return nil
}

// detachForeign lets go of what the copy of the machine's mounts would keep
// alive: other programs' network namespaces and containers' file systems.
func detachForeign() error {
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	slices.Reverse(lines) // the innermost first
	for _, line := range lines {
		before, after, _ := strings.Cut(line, " - ")
		fields := strings.Fields(before)
		kind, _, _ := strings.Cut(after, " ")
		if len(fields) > 4 && fields[4] != "/" && (kind == "nsfs" || kind == "overlay") {
			_ = unix.Unmount(unescape(fields[4]), unix.MNT_DETACH) // gone meanwhile, or below one that went
		}
	}
	return nil
}

// unescape undoes the octal escapes of mountinfo (proc(5)).
func unescape(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// mounts replaces the directories that are the node's own. What must stay
// visible below them is picked up first and put back afterwards.
func (c Config) mounts() error {
	keep := []string{"/sys/fs/cgroup"}
	if _, err := os.Stat("/sys/kernel/security/apparmor"); err == nil {
		keep = append(keep, "/sys/kernel/security")
	}
	for _, dir := range c.Share {
		if hidden(dir) {
			keep = append(keep, dir)
		}
	}
	kept, err := pickUp(keep)
	if err != nil {
		return err
	}
	if err := c.disk(); err != nil {
		return err
	}
	for _, m := range []struct {
		source, target, kind string
		flags                uintptr
		data                 string
	}{
		{"overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir=" + filepath.Join(c.Disk, "etc") + ",workdir=" + filepath.Join(c.Disk, "etc.work")},
		{filepath.Join(c.Disk, "opt"), "/opt", "", unix.MS_BIND, ""},
		{filepath.Join(c.Disk, "var"), "/var", "", unix.MS_BIND, ""},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=755"},
		// A new sysfs shows this network namespace's devices.
		{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	} {
		if err := mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/run/netns", "/run/lock"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	if err := putBack(keep, kept); err != nil {
		return err
	}
	return mount("bpf", "/sys/fs/bpf", "bpf", 0, "")
}

// hidden says whether a path is below a directory that the node replaces.
func hidden(path string) bool {
	return slices.ContainsFunc([]string{"/etc/", "/opt/", "/var/", "/run/"}, func(dir string) bool {
		return strings.HasPrefix(path, dir)
	})
}

// disk makes the directories of a new node's disk.
func (c Config) disk() error {
	for _, dir := range []string{"etc", "etc.work", "opt/cni/bin", "var/lib", "var/log", "var/cache", "var/spool"} {
		if err := os.MkdirAll(filepath.Join(c.Disk, dir), 0o755); err != nil {
			return fmt.Errorf("make disk: %w", err)
		}
	}
	tmp := filepath.Join(c.Disk, "var/tmp")
	if err := os.MkdirAll(tmp, 0o777); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	for _, link := range []struct{ to, name string }{{"/run", "run"}, {"/run/lock", "lock"}} {
		if err := os.Symlink(link.to, filepath.Join(c.Disk, "var", link.name)); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make disk: %w", err)
		}
	}
	if err := os.Chmod(tmp, 0o777|fs.ModeSticky); err != nil {
		return fmt.Errorf("make disk: %w", err)
	}
	return c.linkPlugins()
}

func (c Config) linkPlugins() error {
	if c.CNIPlugins == "" {
		return nil
	}
	entries, err := os.ReadDir(c.CNIPlugins)
	if err != nil {
		return fmt.Errorf("find CNI plugins: %w", err)
	}
	for _, entry := range entries {
		err := os.Symlink(filepath.Join(c.CNIPlugins, entry.Name()), filepath.Join(c.Disk, "opt/cni/bin", entry.Name()))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("link CNI plugin: %w", err)
		}
	}
	return nil
}

// pickUp clones trees of mounts; open_tree(2) is in Linux since 5.2.
func pickUp(paths []string) (trees []*os.File, err error) {
	for _, path := range paths {
		fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return nil, fmt.Errorf("pick up %s: %w", path, err)
		}
		trees = append(trees, os.NewFile(uintptr(fd), path))
	}
	return trees, nil
}

func putBack(paths []string, trees []*os.File) error {
	for i, path := range paths {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("put back %s: %w", path, err)
		}
		if err := unix.MoveMount(int(trees[i].Fd()), "", unix.AT_FDCWD, path, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("put back %s: %w", path, err)
		}
		trees[i].Close()
	}
	return nil
}

// files writes what each node has of its own in /etc.
func (c Config) files() error {
	if _, err := os.Lstat(filepath.Join(c.Disk, "etc/cni")); err != nil {
		// A new node; the machine's own network configuration is not its.
		if err := os.RemoveAll("/etc/cni"); err != nil {
			return fmt.Errorf("clear /etc/cni: %w", err)
		}
	}
	if err := os.MkdirAll("/etc/cni/net.d", 0o755); err != nil {
		return fmt.Errorf("make directory: %w", err)
	}
	id := sha256.Sum256([]byte(c.Cluster + "/" + c.Name))
	for _, file := range []struct{ path, content string }{
		{"/etc/hosts", c.Hosts},
		{"/etc/hostname", c.Name + "\n"},
		{"/etc/resolv.conf", "nameserver " + c.Nameserver + "\n"},
		{"/etc/machine-id", hex.EncodeToString(id[:16]) + "\n"},
	} {
		// The machine's may be a symbolic link to a place below /run.
		if err := os.Remove(file.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("replace %s: %w", file.path, err)
		}
		if err := os.WriteFile(file.path, []byte(file.content), 0o644); err != nil {
			return fmt.Errorf("write %s: %w", file.path, err)
		}
	}
	return nil
}

// settings covers files of /proc/sys that are the whole machine's: the boot id,
// which every start of a node has its own of, and what a kubelet sets and finds
// set here, so that the machine keeps its own values.
func (c Config) settings() error {
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return fmt.Errorf("make boot id: %w", err)
	}
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	uuid := fmt.Sprintf("%x-%x-%x-%x-%x\n", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	for name, value := range map[string]string{
		"kernel/random/boot_id":     uuid,
		"kernel/panic":              "10\n",
		"kernel/panic_on_oops":      "1\n",
		"kernel/keys/root_maxkeys":  "1000000\n",
		"kernel/keys/root_maxbytes": "25000000\n",
		"vm/overcommit_memory":      "1\n",
		"vm/panic_on_oom":           "0\n",
	} {
		if err := cover("/proc/sys/"+name, []byte(value)); err != nil {
			return err
		}
	}
	return nil
}

func cover(path string, content []byte) error {
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil // not in this kernel
	}
	over := filepath.Join("/run/settings", strings.ReplaceAll(path[1:], "/", "."))
	if err := os.MkdirAll(filepath.Dir(over), 0o755); err != nil {
		return fmt.Errorf("cover %s: %w", path, err)
	}
	if err := os.WriteFile(over, content, 0o644); err != nil {
		return fmt.Errorf("cover %s: %w", path, err)
	}
	return mount(over, path, "", unix.MS_BIND, "")
}
