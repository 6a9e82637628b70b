package build

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Module is a nested module, whose tool lines are programs.
type Module struct {
	Version string // of what it builds: "v1.36.3"
	Dir     string // where the programs are, once built
	source  string // its directory
}

// Program is the path of one of the programs.
func (m Module) Program(name string) string { return filepath.Join(m.Dir, name) }

// required takes the versions of some modules from a module's go.mod.
func (m Module) required(paths ...string) (versions []string, err error) {
	f, err := os.Open(filepath.Join(m.source, "go.mod"))
	if err != nil {
		return nil, fmt.Errorf("find programs: %w", err)
	}
	defer f.Close()
	found := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(strings.TrimPrefix(lines.Text(), "require ")); len(fields) >= 2 {
			found[fields[0]] = fields[1]
		}
	}
	for _, path := range paths {
		if found[path] == "" {
			return nil, fmt.Errorf("find programs: %s does not require %s", f.Name(), path)
		}
		versions = append(versions, found[path])
	}
	return versions, nil
}

// hash names what is built by what it is built from.
func (m Module) hash(goVersion string, flags []string, more ...string) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %s/%s %q\n", goVersion, runtime.GOOS, runtime.GOARCH, flags)
	for _, name := range append([]string{"go.mod", "go.sum"}, more...) {
		b, err := os.ReadFile(filepath.Join(m.source, name))
		if err != nil {
			return "", fmt.Errorf("find programs: %w", err)
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(b), b)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// once runs do with a directory on the same file system, unless goal is there,
// one process at a time.
func (m Module) once(goal string, do func(stage string) error) error {
	if exists(goal) {
		return nil
	}
	parent := filepath.Dir(m.Dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("build programs: %w", err)
	}
	lock, err := os.OpenFile(m.Dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("build programs: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("build programs: wait for another build: %w", err)
	}
	if exists(goal) {
		return nil
	}
	// An aborted run may have left a stage, and a go command that still writes
	// there: it must not be ours.
	stages, err := filepath.Glob(m.Dir + ".new-*")
	for _, old := range stages {
		err = errors.Join(err, os.RemoveAll(old))
	}
	if err != nil {
		return fmt.Errorf("build programs: %w", err)
	}
	stage, err := os.MkdirTemp(parent, filepath.Base(m.Dir)+".new-")
	if err != nil {
		return fmt.Errorf("build programs: %w", err)
	}
	defer func() { _ = os.RemoveAll(stage) }() // what stays, the next build removes
	return do(stage)
}

// become makes a whole stage the module's directory.
func (m Module) become(stage string) error {
	if err := os.RemoveAll(m.Dir); err != nil { // a left-over cannot be whole
		return err
	}
	return errors.Join(os.Chmod(stage, 0o755), os.Rename(stage, m.Dir))
}

// run runs the go command and says now and then how far it is: a first build
// takes ten minutes.
func (m Module) run(ctx context.Context, say func(string), what string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = m.source
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	pipe, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("go %s: %w", args[0], err)
	}
	last := follow(pipe, what, say)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("go %s: %w:\n%s", args[0], err, last)
	}
	return nil
}

// follow counts the packages that the go command names and returns its last
// words.
func follow(output io.Reader, what string, say func(string)) string {
	const period = 20 * time.Second
	packages, next := 0, time.Now().Add(period)
	var last []string
	for lines := bufio.NewScanner(output); lines.Scan(); {
		packages++
		last = append(last[max(0, len(last)-9):], lines.Text())
		if time.Now().After(next) {
			say(fmt.Sprintf("building %s: %d packages so far", what, packages))
			next = time.Now().Add(period)
		}
	}
	return strings.Join(last, "\n")
}
