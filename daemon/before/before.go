// Package before remembers what a node was like before Poplin, so that it can
// be so again. Inputs are changes of settings that are not of Poplin's own
// devices; output is a file that survives crashes and reboots, written before
// the change is made. It refuses to stand in the way: a change that cannot be
// remembered is made, with a warning.
package before

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"poplin.dev/poplin/install"
	"poplin.dev/poplin/pkg/apply/sysctl"
)

// File is its name in the state directory.
const File = "before.json"

// entry is a change, and the boot in which it was made: after a reboot, the
// value found is that of the machine's own configuration again.
type entry struct {
	Boot string
	sysctl.Change
}

// Memory is one node's.
type Memory struct {
	dir string
	log *slog.Logger
	mu  sync.Mutex // guards the file
}

// In is the memory in a state directory.
func In(dir string, log *slog.Logger) *Memory { return &Memory{dir: dir, log: log} }

// Note remembers a change. What was before the first one of a boot counts:
// later ones repair what others did to ours, or go on from it.
func (m *Memory) Note(c sysctl.Change) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.note(c); err != nil {
		m.log.Warn("uninstalling will leave a sysctl as it is now", "key", c.Key, "before", c.Before, "error", err)
	}
}

func (m *Memory) note(c sysctl.Change) error {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("read the boot's id: %w", err)
	}
	now := entry{strings.TrimSpace(string(boot)), c}
	known, err := m.load()
	if err != nil {
		m.log.Warn("what was remembered is lost", "error", err)
	}
	if old, ok := known[c.Key]; ok && old.Boot == now.Boot {
		if old.After == c.After {
			return nil
		}
		now.Before, now.Also = old.Before, old.Also
	}
	if known == nil {
		known = map[string]entry{}
	}
	known[c.Key] = now
	text, err := json.MarshalIndent(known, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", File, err)
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	_, err = install.File(m.path(), 0o600, text)
	return err
}

func (m *Memory) path() string { return filepath.Join(m.dir, File) }

func (m *Memory) load() (known map[string]entry, err error) {
	text, err := os.ReadFile(m.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &known)
	}
	if err != nil {
		return nil, fmt.Errorf("read what the node was like before (%s): %w", m.path(), err)
	}
	return known, nil
}

// Changes are all that is remembered, by key.
func (m *Memory) Changes() (map[string]sysctl.Change, error) {
	known, err := m.load()
	changes := map[string]sysctl.Change{}
	for key, e := range known {
		changes[key] = e.Change
	}
	return changes, err
}
