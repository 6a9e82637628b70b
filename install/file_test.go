package install

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "10-poplin.conflist")
	// What a crash before the rename leaves.
	left := filepath.Join(dir, ".10-poplin.conflist.123.tmp")
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	steps := []struct {
		do      func() error
		content string
		mode    fs.FileMode
		changed bool
	}{
		{nil, "one", 0o600, true},
		{nil, "one", 0o600, false},
		{nil, "two", 0o600, true},
		{nil, "two", 0o644, true},
		{func() error { return os.Remove(path) }, "two", 0o644, true},
		{func() error { return os.Truncate(path, 1) }, "two", 0o644, true},
		{func() error { _ = os.Remove(path); return os.Symlink("/dev/null", path) }, "two", 0o644, true},
	}
	for i, s := range steps {
		if s.do != nil {
			if err := s.do(); err != nil {
				t.Fatal(err)
			}
		}
		changed, err := File(path, s.mode, []byte(s.content))
		if err != nil || changed != s.changed {
			t.Fatalf("step %d: changed %v, error %v", i, changed, err)
		}
		info, err := os.Lstat(path)
		if err != nil || info.Mode() != s.mode {
			t.Fatalf("step %d: %v, %v", i, info, err)
		}
		if b, _ := os.ReadFile(path); string(b) != s.content {
			t.Fatalf("step %d: content %q", i, b)
		}
		entries, _ := os.ReadDir(dir)
		if len(entries) != 1 {
			t.Fatalf("step %d: %v", i, entries)
		}
	}
	if _, err := File(filepath.Join(dir, "absent", "x"), 0o600, nil); err == nil || !strings.Contains(err.Error(), "absent/x") {
		t.Errorf("no directory: %v", err)
	}
}

const answers = "#!/bin/sh\n[ \"$CNI_COMMAND\" = VERSION ] && echo '{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}'\n# "

// TestPrivate: a directory is root's alone, whoever made it.
func TestPrivate(t *testing.T) {
	there, missing := t.TempDir(), filepath.Join(t.TempDir(), "a", "b")
	if err := os.Chmod(there, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{there, missing, ""} {
		if err := Private(dir); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(dir); dir != "" && (err != nil || info.Mode().Perm() != 0o700) {
			t.Errorf("%s: %v, %v", dir, info.Mode(), err)
		}
	}
}

func TestPlugin(t *testing.T) {
	dir := t.TempDir()
	from := filepath.Join(t.TempDir(), "poplin")
	to := filepath.Join(dir, "poplin")
	put := func(content string) (bool, error) {
		t.Helper()
		if err := os.WriteFile(from, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
		return Plugin(t.Context(), from, dir)
	}
	holds := func(want string) {
		t.Helper()
		b, err := os.ReadFile(to)
		if err != nil || string(b) != want {
			t.Errorf("holds %q, %v; want %q", b, err, want)
		}
		if entries, _ := os.ReadDir(dir); len(entries) != 1 {
			t.Errorf("left behind: %v", entries)
		}
	}
	if changed, err := put(answers + "1"); err != nil || !changed {
		t.Fatal(changed, err)
	}
	holds(answers + "1")
	if changed, err := put(answers + "1"); err != nil || changed {
		t.Fatal(changed, err)
	}
	// A running plugin keeps its file: the new one is another inode.
	old, err := os.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if changed, err := put(answers + "2"); err != nil || !changed {
		t.Fatal(changed, err)
	}
	holds(answers + "2")
	was, _ := old.Stat()
	is, _ := os.Stat(to)
	if os.SameFile(was, is) {
		t.Error("the file was overwritten in place")
	}
	// Binaries that do not work change nothing.
	for _, bad := range []string{"\x7fELF of another machine", "", "#!/bin/sh\nexit 3\n", "#!/bin/sh\necho hello\n", "#!/bin/sh\necho '{}'\n"} {
		if changed, err := put(bad); err == nil || changed || !strings.Contains(err.Error(), "the old one stays") {
			t.Errorf("%q: %v, %v", bad, changed, err)
		}
		holds(answers + "2")
	}
	if _, err := Plugin(t.Context(), filepath.Join(dir, "absent"), dir); err == nil || !strings.Contains(err.Error(), "read plugin") {
		t.Errorf("no source: %v", err)
	}
}

func TestPluginThatHangs(t *testing.T) {
	from := filepath.Join(t.TempDir(), "poplin")
	if err := os.WriteFile(from, []byte("#!/bin/sh\nexec sleep 60\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Plugin(ctx, from, t.TempDir()); err == nil {
		t.Error("accepted")
	}
}
