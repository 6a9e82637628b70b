// Package install puts files on a node: the CNI binary, and what else the
// daemon writes there. Inputs are content and places; a file appears whole,
// under its final name, or not at all. It refuses a binary that does not run
// on this node. It also holds the manifests that install Poplin on a cluster.
package install

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// File makes path hold content with mode, and reports whether it had to. A
// crash at any moment leaves the old content or the new. Nothing is written
// when the file is as it should be.
func File(path string, mode fs.FileMode, content []byte) (changed bool, err error) {
	if same(path, mode, content) {
		return false, nil
	}
	tmp, err := stage(path, mode, content)
	if err != nil {
		return false, err
	}
	return true, move(tmp, path)
}

// Private makes a directory root's alone: as a volume, the kubelet has made it
// open to everybody. An empty path is none.
func Private(dir string) error {
	if dir == "" {
		return nil
	}
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.Chmod(dir, 0o700)); err != nil {
		return fmt.Errorf("close directory %s to others: %w", dir, err)
	}
	return nil
}

func same(path string, mode fs.FileMode, content []byte) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != mode || info.Size() != int64(len(content)) {
		return false
	}
	old, err := os.ReadFile(path)
	return err == nil && bytes.Equal(old, content)
}

// stage writes content beside path. The name starts with a dot and ends in
// .tmp: neither a container runtime that looks for *.conf, *.conflist and
// *.json nor one that looks for a plugin's name takes it. What an earlier
// crash left is removed; a second process that is just staging the same file
// would fail to move it, and try again.
func stage(path string, mode fs.FileMode, content []byte) (tmp string, err error) {
	dir, base := filepath.Split(path)
	left, err := filepath.Glob(filepath.Join(dir, "."+base+".*.tmp"))
	if err != nil {
		return "", fmt.Errorf("look for leftovers of %s: %w", path, err)
	}
	for _, f := range left {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("remove a leftover: %w", err)
		}
	}
	f, err := os.CreateTemp(dir, "."+base+".*.tmp")
	if err != nil {
		return "", fmt.Errorf("write %s: %w", path, err)
	}
	defer f.Close()
	_, err = f.Write(content)
	// Chmod because CreateTemp's mode is 0600 and a umask narrows others.
	if err := errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return f.Name(), nil
}

// move gives the staged file its name, for good: without a sync of the
// directory a power failure could bring the old one back.
func move(tmp, path string) error {
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(fmt.Errorf("put %s in place: %w", path, err), os.Remove(tmp))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fmt.Errorf("sync directory of %s: %w", path, err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync directory of %s: %w", path, err)
	}
	return nil
}
