package images

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"poplin.dev/poplin/install/image/oci"
)

// userland are the programs that the conformance suite executes in agnhost's
// containers; upstream's image has them from Alpine.
var userland = []string{
	"getent", "bash", "curl", "wget", "dig", "nslookup", "host", "nc", "ip", "ss", "ping", "iperf", "tcpdump", "nft", "iptables",
}

// shadows are busybox's versions of what userland has. Debian 12's busybox 1.35
// crashes on `wget -T`, and its sh prefers its own applets to real programs in
// PATH, hence dash is the shell.
var shadows = append([]string{"sh", "ash"}, userland...)

const (
	passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\nuser-defined-in-image:x:1000:1000::/:/bin/sh\n"
	group  = "root:x:0:\nnogroup:x:65534:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"
)

func (s Source) busybox(c *composer) (oci.Archive, error) {
	if err := c.busybox(nil); err != nil {
		return oci.Archive{}, err
	}
	c.identity()
	return oci.Archive{
		Names:  []string{Busybox},
		Images: []oci.Image{{Platform: platform, Cmd: []string{"sh"}, Env: env, WorkingDir: "/", Files: c.take()}},
	}, nil
}

// agnhost is more than its program: the suite runs shells, resolvers and
// clients in it.
func (s Source) agnhost(c *composer) (oci.Archive, error) {
	if err := c.busybox(shadows); err != nil {
		return oci.Archive{}, err
	}
	for _, name := range userland {
		if err := c.program(name, ""); err != nil {
			return oci.Archive{}, err
		}
	}
	if err := c.program("dash", "/bin/sh"); err != nil {
		return oci.Archive{}, err
	}
	c.link("/bin/bash", "/usr/bin/bash")
	if err := c.nameService(); err != nil {
		return oci.Archive{}, err
	}
	c.identity()
	for _, dir := range []string{"/uploads", "/root", "/proc", "/sys", "/dev", "/var/run", "/run", "/usr/local/bin", "/usr/sbin", "/sbin"} {
		c.directory(dir, 0o755)
	}
	c.file("/agnhost", 0o755, filepath.Join(s.Programs, "agnhost"))
	c.link("/agnhost-2", "agnhost")
	c.file("/coredns", 0o755, filepath.Join(s.Programs, "coredns")) // the DNS tests run it from this image
	for _, name := range []string{"localhost.crt", "localhost.key"} {
		c.file("/"+name, 0o644, filepath.Join(s.Programs, name))
	}
	return oci.Archive{
		Names: []string{s.AgnhostName(), "registry.k8s.io/e2e-test-images/agnhost:2.55", "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0"},
		Images: []oci.Image{{Platform: platform, Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}, Env: env,
			WorkingDir: "/", Files: c.take()}},
	}, nil
}

// composer gathers the files of one image after the other; the first file at a
// path stays.
type composer struct {
	ctx   context.Context
	find  func(string) string
	work  string
	files map[string]oci.File
}

func (c *composer) add(f oci.File) {
	if c.files == nil {
		c.files = map[string]oci.File{}
	}
	if _, taken := c.files[f.Path]; !taken {
		c.files[f.Path] = f
	}
}

func (c *composer) file(path string, mode fs.FileMode, source string) {
	c.add(oci.File{Path: path, Mode: mode, Source: source})
}

func (c *composer) link(path, to string) {
	c.add(oci.File{Path: path, Mode: fs.ModeSymlink, Link: to})
}

func (c *composer) directory(path string, mode fs.FileMode) {
	c.add(oci.File{Path: path, Mode: fs.ModeDir | mode})
}

// take returns what was gathered and starts anew.
func (c *composer) take() []oci.File {
	var list []oci.File
	for _, f := range c.files {
		list = append(list, f)
	}
	c.files = nil
	return list
}

func (c *composer) identity() {
	c.directory("/tmp", 0o777|fs.ModeSticky)
	c.add(oci.File{Path: "/etc/passwd", Mode: 0o644, Content: []byte(passwd)})
	c.add(oci.File{Path: "/etc/group", Mode: 0o644, Content: []byte(group)})
}

// busybox adds busybox and a link for each applet but those without.
func (c *composer) busybox(without []string) error {
	if err := c.program("busybox", "/bin/busybox"); err != nil {
		return err
	}
	out, err := exec.CommandContext(c.ctx, c.find("busybox"), "--list").Output()
	if err != nil {
		return fmt.Errorf("list busybox's applets: %w", err)
	}
	for _, applet := range strings.Fields(string(out)) {
		if !slices.Contains(without, applet) {
			c.link("/bin/"+applet, "/bin/busybox")
		}
	}
	return nil
}

// sharedObject matches the paths in ldd's output.
var sharedObject = regexp.MustCompile(`/\S+\.so\S*`)

// program adds a program of this machine with the libraries it needs, at its
// own path or at another.
func (c *composer) program(name, at string) error {
	path := c.find(name)
	if path == "" {
		return fmt.Errorf("program %s is missing; install it first (cluster tools)", name)
	}
	if at == "" {
		at = path
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("find program %s: %w", name, err)
	}
	c.file(at, 0o755, real)
	// ldd fails on a static program, which needs nothing.
	out, _ := exec.CommandContext(c.ctx, "ldd", real).Output()
	for _, library := range sharedObject.FindAllString(string(out), -1) {
		if err := c.library(library); err != nil {
			return err
		}
	}
	return nil
}

func (c *composer) library(path string) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("find library: %w", err)
	}
	c.file(path, 0o755, real)
	return nil
}

// nameService adds what the C library loads by name when it resolves.
func (c *composer) nameService() error {
	resolver, err := filepath.Glob("/lib/*-linux-gnu/lib*.so.2")
	if err != nil {
		return err
	}
	for _, path := range resolver {
		switch filepath.Base(path) {
		case "libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2":
			if err := c.library(path); err != nil {
				return err
			}
		}
	}
	if _, err := os.Stat("/etc/nsswitch.conf"); err == nil {
		c.file("/etc/nsswitch.conf", 0o644, "/etc/nsswitch.conf")
	}
	return nil
}
