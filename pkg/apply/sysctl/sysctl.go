// Package sysctl makes files below /proc/sys/net hold what a program says.
// Inputs are the directory where that tree is found (in a container it is
// often a mount elsewhere, because /proc/sys is read-only there) and the
// settings in their order; outputs are a Result and errors that name key and
// remedy, and what a shared setting was before. It writes only what differs,
// and refuses keys that leave the tree.
package sysctl

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/program"
)

// DefaultRoot is the tree of the calling thread's network namespace.
const DefaultRoot = "/proc/sys/net"

// Tree is a place where /proc/sys/net is found.
type Tree struct {
	// Root is that place; "" is DefaultRoot.
	Root string
	// Note, if not nil, is told of each change of a shared setting before it
	// is made.
	Note func(Change)
}

// Set writes what differs, in the program's order. A failed key does not stop the others.
func (t Tree) Set(settings []program.Sysctl) (diff.Result, error) {
	var (
		res  diff.Result
		errs []error
	)
	for _, s := range settings {
		changed, err := t.set(s)
		switch {
		case err != nil:
			res.Failed++
			errs = append(errs, err)
		case changed:
			res.Changed++
		}
	}
	return res, errors.Join(errs...)
}

// Hold reports that Set would write nothing.
func (t Tree) Hold(settings []program.Sysctl) bool {
	for _, s := range settings {
		if right, err := t.right(s); err != nil || !right {
			return false
		}
	}
	return true
}

// right says that there is nothing to be done about s.
func (t Tree) right(s program.Sysctl) (bool, error) {
	for _, c := range s.If {
		now, err := t.read(c.Key)
		if errors.Is(err, fs.ErrNotExist) || err == nil && now != c.Value {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	now, err := t.read(s.Key)
	if errors.Is(err, fs.ErrNotExist) && s.Optional {
		return true, nil
	}
	return err == nil && (now == s.Value || s.AtLeast && number(now) >= number(s.Value)), err
}

// Number is a setting's value, where there is one and it is a number.
func (t Tree) Number(key string) (n int, known bool) {
	text, err := t.read(key)
	if err != nil {
		return 0, false
	}
	n, err = strconv.Atoi(text)
	return n, err == nil
}

// number is 0 for what is none.
func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}

func (t Tree) set(s program.Sysctl) (changed bool, err error) {
	if right, err := t.right(s); err != nil || right {
		return false, err
	}
	if s.Shared && t.Note != nil {
		c, err := t.change(s)
		if err != nil {
			return false, err
		}
		t.Note(c)
	}
	return true, t.write(s.Key, s.Value)
}

func (t Tree) write(key, value string) error {
	path, err := t.path(key)
	if err != nil {
		return err
	}
	// No O_CREATE and no O_TRUNC: these are not files, and a missing one
	// must not become one in a directory that was mounted by mistake.
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(value)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		return fmt.Errorf("set sysctl net/%s to %s, set it on the node or make %s writable: %w", key, value, t.root(), err)
	}
	return nil
}

func (t Tree) read(key string) (string, error) {
	path, err := t.path(key)
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read sysctl net/%s: %w", key, err)
	}
	return strings.TrimSpace(string(b)), nil
}

func (t Tree) path(key string) (string, error) {
	if !filepath.IsLocal(key) {
		return "", fmt.Errorf("sysctl key %q: not a path below %s", key, t.root())
	}
	return filepath.Join(t.root(), key), nil
}

func (t Tree) root() string {
	if t.Root == "" {
		return DefaultRoot
	}
	return t.Root
}
