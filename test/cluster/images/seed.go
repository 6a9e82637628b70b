package images

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// A seed is the directory of a containerd that has imported all images. A new
// node begins with a copy of it, which shares what never changes: importing the
// same archives on each node costs seconds of CPU time per node.

// seedConfig is of a containerd without CRI that keeps to one directory.
const seedConfig = `version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "%[1]s/socket"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/opt"
`

// grow imports archives into a new seed at root.
func (s Source) grow(ctx context.Context, work, root string, archives []string) error {
	config := filepath.Join(work, "config.toml")
	if err := os.WriteFile(config, fmt.Appendf(nil, seedConfig, work), 0o644); err != nil {
		return err
	}
	var log strings.Builder
	cmd := exec.CommandContext(ctx, s.Lookup("containerd"), "--config="+config, "--log-level=warn")
	cmd.Stdout, cmd.Stderr = &log, &log
	// It unpacks through mounts; they go with its namespace, and it with us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL, Setsid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	runtime.LockOSThread() // the signal is sent when this thread ends
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return err
	}
	err := s.importAll(ctx, filepath.Join(work, "socket"), archives)
	err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM))
	if waitErr := cmd.Wait(); err != nil {
		return fmt.Errorf("containerd: %w (%w): %s", err, waitErr, log.String())
	}
	return os.Rename(filepath.Join(work, "root"), root)
}

func (s Source) importAll(ctx context.Context, socket string, archives []string) error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			_ = conn.Close()
			break
		}
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("wait for its socket: %w", err)
		}
	}
	for _, archive := range archives {
		out, err := exec.CommandContext(ctx, s.Lookup("ctr"), "--address="+socket, "--namespace=k8s.io", "images", "import", archive).CombinedOutput()
		if err != nil {
			return fmt.Errorf("import %s: %w: %s", archive, err, out)
		}
	}
	return nil
}

// Plant gives a new node the seed's images. A directory that is there already
// is a node's that had them before.
func (s Set) Plant(dir string) error {
	if exists(dir) {
		return nil
	}
	stage := dir + ".new"
	if err := os.RemoveAll(stage); err != nil {
		return fmt.Errorf("plant images: %w", err)
	}
	seed := filepath.Join(s.Dir, "seed")
	if err := filepath.WalkDir(seed, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return plant(path, filepath.Join(stage, strings.TrimPrefix(path, seed)), strings.TrimPrefix(path, seed+"/"), entry)
	}); err != nil {
		return fmt.Errorf("plant images: %w", err)
	}
	if err := os.Rename(stage, dir); err != nil {
		return fmt.Errorf("plant images: %w", err)
	}
	return nil
}

// Below these containerd never changes a file: content is named by its digest,
// and the lower layers of an overlay are read only.
var shared = []string{"io.containerd.content.v1.content/blobs/", "io.containerd.snapshotter.v1.overlayfs/snapshots/"}

func plant(from, to, name string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	switch {
	case info.IsDir():
		if err := os.Mkdir(to, 0o700); err != nil {
			return err
		}
		return os.Chmod(to, info.Mode())
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case !info.Mode().IsRegular():
		return nil // a socket of the containerd that grew the seed
	}
	for _, prefix := range shared {
		if strings.HasPrefix(name, prefix) && os.Link(from, to) == nil {
			return nil // and where the cache is on another file system, copy
		}
	}
	return copyFile(from, to, info.Mode())
}

func copyFile(from, to string, mode fs.FileMode) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(target, source)
	return errors.Join(err, target.Chmod(mode), target.Close())
}
