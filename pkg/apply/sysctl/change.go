package sysctl

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"poplin.dev/poplin/pkg/program"
)

// Change is what became of a shared setting: enough to undo it.
type Change struct {
	Key, Before, After string
	// Also is what the kernel changes with it, as it was before.
	Also map[string]string `json:",omitempty"`
}

// follow are settings that the kernel writes when it is told to forward:
// those of every device, and, in IPv4, whether redirects are believed
// (inet_forward_change, addrconf_fixup_forwarding).
var follow = map[string][]string{
	"ipv4/ip_forward":          {"ipv4/conf/*/forwarding", "ipv4/conf/all/accept_redirects"},
	"ipv6/conf/all/forwarding": {"ipv6/conf/*/forwarding"},
}

// change reads what setting s is going to change.
func (t Tree) change(s program.Sysctl) (Change, error) {
	c := Change{Key: s.Key, After: s.Value}
	var err error
	if c.Before, err = t.read(s.Key); err != nil {
		return c, err
	}
	for _, pattern := range follow[s.Key] {
		paths, err := filepath.Glob(filepath.Join(t.root(), pattern))
		if err != nil {
			return c, fmt.Errorf("list sysctls net/%s: %w", pattern, err)
		}
		for _, path := range paths {
			key := strings.TrimPrefix(path, t.root()+"/")
			value, err := t.read(key)
			if errors.Is(err, fs.ErrNotExist) || key == s.Key {
				continue // a device that has gone meanwhile
			}
			if err != nil {
				return c, err
			}
			if c.Also == nil {
				c.Also = map[string]string{}
			}
			c.Also[key] = value
		}
	}
	return c, nil
}

// Undo makes a setting what it was, and says whether it had to. A value that
// is not the one of the change is somebody else's by now, and stays.
func (t Tree) Undo(c Change) (undone bool, err error) {
	now, err := t.read(c.Key)
	if errors.Is(err, fs.ErrNotExist) || err == nil && now != c.After {
		return false, nil
	}
	if err == nil {
		err = t.write(c.Key, c.Before)
	}
	if err != nil {
		return false, err
	}
	var errs []error
	for key, before := range c.Also {
		now, err := t.read(key)
		if errors.Is(err, fs.ErrNotExist) || err == nil && now == before {
			continue
		}
		if err == nil {
			err = t.write(key, before)
		}
		errs = append(errs, err)
	}
	return true, errors.Join(errs...)
}
