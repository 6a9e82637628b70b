package daemon

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEndpointsFile(t *testing.T) {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	f := endpointsFile{dir: filepath.Join(t.TempDir(), "poplin")}
	if got := f.load(log); got != nil {
		t.Errorf("nothing saved: %v", got)
	}
	want := []string{"172.30.0.11:6443", "[fd00:30::11]:6443"}
	if err := f.save(want); err != nil {
		t.Fatal(err)
	}
	if got := f.load(log); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if info, err := os.Stat(f.path()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	for _, spoilt := range []string{"", "{", `{"endpoints": 3}`, `{"endpoints": ["no port"]}`, "null"} {
		if err := os.WriteFile(f.path(), []byte(spoilt), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := f.load(log); got != nil {
			t.Errorf("%q: got %v", spoilt, got)
		}
	}
}

const head = "apiVersion: config.poplin.dev/v1alpha1\nkind: Configuration\n"

func TestConfigFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.yaml")
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(head)
	settings, err := readConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	var (
		log     bytes.Buffer
		pending []string
		problem error
		reports int
	)
	f := &configFile{
		path: path, current: settings, level: &slog.LevelVar{},
		log:    slog.New(slog.NewTextHandler(&log, nil)),
		report: func(p []string, err error) { pending, problem = p, err; reports++ },
	}
	steps := []struct {
		text    string
		level   slog.Level
		pending string
		problem string
		logged  string // "" wants silence
	}{
		{head, slog.LevelInfo, "", "", ""},
		{head + "logLevel: debug\n", slog.LevelDebug, "", "", "log level changes"},
		{head + "logLevel: debug\n# a comment\n", slog.LevelDebug, "", "", ""},
		{head + "logLevel: debug\noverlay: {mtu: 1400, vni: 7}\n", slog.LevelDebug, "overlay.mtu overlay.vni", "", "overlay.mtu, overlay.vni"},
		{head + "overlay: {mut: 1}\n", slog.LevelDebug, "", "overlay.mut: unknown key", "last good one stays"},
		{head + "overlay: {mut: 1}\n", slog.LevelDebug, "", "overlay.mut: unknown key", ""}, // once is enough
		{"", slog.LevelDebug, "", "apiVersion", "last good one stays"},
		{head, slog.LevelInfo, "", "", "log level changes"},
	}
	for i, s := range steps {
		put(s.text)
		log.Reset()
		f.read()
		if f.level.Level() != s.level || strings.Join(pending, " ") != s.pending {
			t.Errorf("step %d: level %v, pending %v", i, f.level.Level(), pending)
		}
		if (problem == nil) != (s.problem == "") || problem != nil && !strings.Contains(problem.Error(), s.problem) {
			t.Errorf("step %d: problem %v, want %q", i, problem, s.problem)
		}
		if (log.Len() == 0) != (s.logged == "") || !strings.Contains(log.String(), s.logged) {
			t.Errorf("step %d: logged %q, want %q", i, log.String(), s.logged)
		}
	}
	before := reports
	f.read()
	if reports != before {
		t.Error("an unchanged file was reported")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	f.read()
	if problem == nil || !strings.Contains(problem.Error(), "no such file") {
		t.Errorf("no file: %v", problem)
	}
}

func TestRunRefuses(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("x: 1"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		cfg  Config
		want string
	}{
		{Config{}, "set NODE_NAME"},
		{Config{NodeName: "a", File: filepath.Join(dir, "absent")}, "read configuration"},
		{Config{NodeName: "a", File: bad}, "x: unknown key"},
	}
	for _, tt := range tests {
		if err := Run(t.Context(), tt.cfg); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.cfg, err, tt.want)
		}
	}
}
