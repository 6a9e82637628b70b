// Package place is where clusters live on a machine: directories named after
// them, one of which is also the claim to the name and a lock. In: a cluster's
// name. Out: paths, a claim, a lock, and removal of it all. It refuses a name
// that is taken, a cluster that another process works on, and to remove what
// has something mounted in it.
package place

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Process records are in runRoot, which does not survive the machine's boot, as
// processes do not; disks and logs are in diskRoot.
const (
	runRoot  = "/run/poplin-cluster"
	diskRoot = "/var/lib/poplin-cluster"
)

// Run is the directory of what goes with the machine's boot.
func Run(name string) string { return filepath.Join(runRoot, name) }

// Disk is the directory of what stays.
func Disk(name string) string { return filepath.Join(diskRoot, name) }

// Configuration writes a file for a program of a node and returns its path.
// /etc is an overlay on the node, whose upper directory must not be written
// behind its back while it is mounted, hence the file is beside the disk.
func Configuration(name, node, base string, content []byte) (path string, err error) {
	path = filepath.Join(Disk(name), "configuration", node, filepath.Base(base))
	if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
		err = os.WriteFile(path, content, 0o644)
	}
	if err != nil {
		return "", fmt.Errorf("write configuration: %w", err)
	}
	return path, nil
}

// Claim takes a name: the directory is made by one process only, and its lock
// says that the process still works on it.
func Claim(name string) (*os.File, error) {
	if err := Free(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(runRoot, 0o755); err != nil {
		return nil, fmt.Errorf("make cluster: %w", err)
	}
	if err := os.Mkdir(filepath.Join(runRoot, name), 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, existsError(name)
		}
		return nil, fmt.Errorf("make cluster: %w", err)
	}
	return Lock(name)
}

// Free refuses a name of which there are directories.
func Free(name string) error {
	for _, root := range []string{runRoot, diskRoot} {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			return existsError(name)
		}
	}
	return nil
}

func existsError(name string) error {
	return fmt.Errorf("make cluster %s: it exists, or something is left of it; take it down first: cluster down --name %s", name, name)
}

// Lock refuses when another process works on the cluster. A process that died
// holds no lock, but a child of its own may for a moment, until it runs its
// program: hence the patience.
func Lock(name string) (*os.File, error) {
	dir, err := os.Open(filepath.Join(runRoot, name))
	if err != nil {
		return nil, fmt.Errorf("lock cluster %s: %w", name, err)
	}
	for end := time.Now().Add(2 * time.Second); unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			dir.Close()
			return nil, fmt.Errorf("lock cluster %s: another command is working on it; wait for its end or stop it", name)
		}
	}
	return dir, nil
}

// Save copies a directory of a cluster to where it outlives the cluster: a new
// place each time, for an older one is not ours to remove.
func Save(name, dir string) (string, error) {
	saved, err := os.MkdirTemp("", "poplin-cluster-"+name+"-"+filepath.Base(dir)+"-")
	if err == nil {
		err = os.CopyFS(saved, os.DirFS(dir))
	}
	if err != nil {
		return "", fmt.Errorf("save %s: %w", dir, err)
	}
	return saved, nil
}

// Remove removes the directories of a cluster. The run directory, whose
// existence keeps the name, goes last.
func Remove(name string) error {
	for _, root := range []string{diskRoot, runRoot} {
		if err := removeDirectory(filepath.Join(root, name)); err != nil {
			return err
		}
		if err := os.Remove(root); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return fmt.Errorf("remove %s: %w", root, err)
		}
	}
	return nil
}

// removeDirectory refuses to look into a mount: all of a cluster's are in
// namespaces that are gone, hence one here is someone else's.
func removeDirectory(dir string) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	for line := range strings.Lines(string(mounts)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4]+"/", dir+"/") {
			return fmt.Errorf("remove %s: something is mounted at %s; unmount it first", dir, fields[4])
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove %s: %w", dir, err)
	}
	return nil
}
