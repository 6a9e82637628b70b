package before_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"poplin.dev/poplin/daemon/before"
	"poplin.dev/poplin/pkg/apply/sysctl"
)

const key = "ipv4/ip_forward"

func TestMemory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	file := filepath.Join(dir, before.File)
	var log strings.Builder
	// Every note is another process': nothing is kept but the file.
	note := func(value string) {
		before.In(dir, slog.New(slog.NewTextHandler(&log, nil))).Note(sysctl.Change{Key: key, Before: value, After: "9"})
	}
	remembered := func(want string) {
		t.Helper()
		changes, err := before.In(dir, slog.Default()).Changes()
		if err != nil || changes[key].Before != want {
			t.Errorf("remembered %v, %v; want %q", changes, err, want)
		}
	}
	remembered("")
	note("first")
	remembered("first")
	note("repaired")
	remembered("first")

	before.In(dir, slog.Default()).Note(sysctl.Change{Key: key, Before: "9", After: "10"})
	if changes, _ := before.In(dir, slog.Default()).Changes(); changes[key].After != "10" {
		t.Errorf("changed twice: %+v", changes[key])
	}
	remembered("first")

	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	rewrite := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, rest, _ := strings.Cut(string(text), `"Boot": "`)
	boot, _, _ := strings.Cut(rest, `"`)
	if len(boot) != 36 {
		t.Fatalf("no boot in %s", text)
	}
	rewrite(strings.ReplaceAll(string(text), boot, "00000000-0000-4000-8000-000000000000"))
	note("of this boot")
	remembered("of this boot")

	rewrite("{")
	if _, err := before.In(dir, slog.Default()).Changes(); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("a file cut short: %v", err)
	}
	note("after damage")
	remembered("after damage")
	if !strings.Contains(log.String(), "what was remembered is lost") {
		t.Errorf("no word of the damage:\n%s", &log)
	}

	// What cannot be remembered stops nothing.
	dir = "/proc/nowhere"
	note("lost")
	if !strings.Contains(log.String(), "uninstalling will leave a sysctl as it is now") {
		t.Errorf("no warning:\n%s", &log)
	}
}
