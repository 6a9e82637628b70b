// Package build makes the programs of a real Kubernetes from their Go modules.
// In: the nested module test/cluster/kubernetes, whose tool lines are the list,
// and a cache directory. Out: a directory of programs, complete or not there at
// all, found again by a hash of all that went into it. It refuses a version of
// Kubernetes for which there is no such module.
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

// Kubernetes is one version, not necessarily built yet.
type Kubernetes struct {
	Version string // "v1.36.3"
	CoreDNS string // "v1.14.0"
	Agnhost string // "2.63.0"
	Dir     string // where the programs are, once built
	module  string
}

// Programs that Dir holds.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Kubelet           = "kubelet"
	Proxy             = "kube-proxy"
	Kubectl           = "kubectl"
	Agnhost           = "agnhost"
	CoreDNS           = "coredns"
	Regression        = "regression-issue-74839" // only after Conformance
)

// agnhostVersion is what the conformance suite of the Kubernetes in go.mod asks
// for (test/utils/image/manifest.go there).
const agnhostVersion = "2.63.0"

// flags are the same for every program, so that one build cache serves all.
func (k Kubernetes) flags() []string {
	const variable = "k8s.io/component-base/version"
	major, minor, _ := strings.Cut(strings.TrimPrefix(k.Version, "v"), ".")
	minor, _, _ = strings.Cut(minor, ".")
	var x []string
	for _, pair := range [][2]string{
		{variable + ".gitVersion", k.Version}, {variable + ".gitMajor", major}, {variable + ".gitMinor", minor},
		{variable + ".gitTreeState", "clean"}, {variable + ".gitCommit", k.Version}, {"main.Version", k.Agnhost},
	} {
		x = append(x, "-X "+pair[0]+"="+pair[1])
	}
	return []string{"-trimpath", "-buildvcs=false", "-ldflags", "-s -w " + strings.Join(x, " ")}
}

// Find chooses the module for a version: "" is the project's default, "1.36"
// the patch version that there is of it. goVersion is part of the identity of
// what is built.
func Find(root, cache, version, goVersion string) (Kubernetes, error) {
	mods, err := filepath.Glob(filepath.Join(root, "test/cluster/kubernetes*/go.mod"))
	if err != nil || len(mods) == 0 {
		return Kubernetes{}, fmt.Errorf("find Kubernetes: no module test/cluster/kubernetes in %s", root)
	}
	var known []string
	for _, mod := range mods {
		k, err := read(filepath.Dir(mod))
		if err != nil {
			return Kubernetes{}, err
		}
		known = append(known, k.Version)
		want := "v" + strings.TrimPrefix(version, "v")
		if version == "" && filepath.Base(k.module) == "kubernetes" || k.Version == want || strings.HasPrefix(k.Version, want+".") {
			sum, err := k.hash(goVersion)
			k.Dir = filepath.Join(cache, "kubernetes", sum)
			return k, err
		}
	}
	return Kubernetes{}, fmt.Errorf("find Kubernetes %s: known is %s; add a module test/cluster/kubernetes-VERSION for another", version, strings.Join(known, ", "))
}

// read takes the versions from a module's go.mod.
func read(module string) (Kubernetes, error) {
	f, err := os.Open(filepath.Join(module, "go.mod"))
	if err != nil {
		return Kubernetes{}, fmt.Errorf("find Kubernetes: %w", err)
	}
	defer f.Close()
	k := Kubernetes{module: module, Agnhost: agnhostVersion}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		fields := strings.Fields(strings.TrimPrefix(lines.Text(), "require "))
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "k8s.io/kubernetes":
			k.Version = fields[1]
		case "github.com/coredns/coredns":
			k.CoreDNS = fields[1]
		}
	}
	if k.Version == "" || k.CoreDNS == "" {
		return k, fmt.Errorf("find Kubernetes: %s requires no k8s.io/kubernetes or no github.com/coredns/coredns", f.Name())
	}
	return k, nil
}

// hash names what is built by what it is built from.
func (k Kubernetes) hash(goVersion string) (string, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %s/%s %q\n", goVersion, runtime.GOOS, runtime.GOARCH, k.flags())
	for _, name := range []string{"go.mod", "go.sum", "coredns/main.go"} {
		b, err := os.ReadFile(filepath.Join(k.module, name))
		if err != nil {
			return "", fmt.Errorf("find Kubernetes: %w", err)
		}
		fmt.Fprintf(sum, "%s %d\n%s", name, len(b), b)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16], nil
}

// Program is the path of one of the programs.
func (k Kubernetes) Program(name string) string { return filepath.Join(k.Dir, name) }

// Built says whether the programs are there.
func (k Kubernetes) Built() bool { return exists(k.Program(Kubelet)) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Build builds the programs if they are not there. Several builds at once wait
// for each other; one that dies leaves nothing that could be taken for whole.
func (k Kubernetes) Build(ctx context.Context, say func(string)) error {
	return k.once(k.Program(Kubelet), func(stage string) error {
		if err := k.run(ctx, say, "Kubernetes", append(append([]string{"build", "-v"}, k.flags()...), "-o", stage+"/", "tool", "./coredns")...); err != nil {
			return err
		}
		// A command is named after the last element of its path that is no version.
		for _, name := range []string{"server", "v3"} {
			if exists(filepath.Join(stage, name)) {
				if err := os.Rename(filepath.Join(stage, name), filepath.Join(stage, Etcd)); err != nil {
					return err
				}
			}
		}
		if err := k.certificates(ctx, stage); err != nil {
			return err
		}
		if err := os.RemoveAll(k.Dir); err != nil { // a left-over cannot be whole
			return err
		}
		return errors.Join(os.Chmod(stage, 0o755), os.Rename(stage, k.Dir))
	})
}

// certificates takes along the files that agnhost's image has beside its
// program, so that the module cache is not needed again.
func (k Kubernetes) certificates(ctx context.Context, stage string) error {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes")
	cmd.Dir = k.module
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("find source of Kubernetes: %w", err)
	}
	source := filepath.Join(strings.TrimSpace(string(out)), "test/images/agnhost")
	version, err := os.ReadFile(filepath.Join(source, "VERSION"))
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(version)); got != k.Agnhost {
		return fmt.Errorf("agnhost of Kubernetes %s is %s, not %s: change agnhostVersion", k.Version, got, k.Agnhost)
	}
	for _, name := range []string{"localhost.crt", "localhost.key"} {
		b, err := os.ReadFile(filepath.Join(source, "porter", name))
		if err == nil {
			err = os.WriteFile(filepath.Join(stage, name), b, 0o644)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Conformance adds what the conformance suite needs.
func (k Kubernetes) Conformance(ctx context.Context, say func(string)) error {
	if err := k.Build(ctx, say); err != nil {
		return err
	}
	return k.once(k.Program("e2e.test"), func(stage string) error {
		if err := k.run(ctx, say, Regression, append(append([]string{"build", "-v"}, k.flags()...), "-o", stage+"/", "k8s.io/kubernetes/test/images/"+Regression)...); err != nil {
			return err
		}
		test := filepath.Join(stage, "e2e.test")
		if err := k.run(ctx, say, "the conformance suite", append(append([]string{"test", "-c", "-v"}, k.flags()...), "-o", test, "k8s.io/kubernetes/test/e2e")...); err != nil {
			return err
		}
		// The one that says that all are there comes last.
		return errors.Join(os.Rename(filepath.Join(stage, Regression), k.Program(Regression)), os.Rename(test, k.Program("e2e.test")))
	})
}

// once runs do with a directory on the same file system, unless goal is there,
// one process at a time.
func (k Kubernetes) once(goal string, do func(stage string) error) error {
	if exists(goal) {
		return nil
	}
	parent := filepath.Dir(k.Dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("build Kubernetes: %w", err)
	}
	lock, err := os.OpenFile(k.Dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("build Kubernetes: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("build Kubernetes: wait for another build: %w", err)
	}
	if exists(goal) {
		return nil
	}
	// An aborted run may have left a stage, and a go command that still writes
	// there: it must not be ours.
	stages, err := filepath.Glob(k.Dir + ".new-*")
	for _, old := range stages {
		err = errors.Join(err, os.RemoveAll(old))
	}
	if err != nil {
		return fmt.Errorf("build Kubernetes: %w", err)
	}
	stage, err := os.MkdirTemp(parent, filepath.Base(k.Dir)+".new-")
	if err != nil {
		return fmt.Errorf("build Kubernetes: %w", err)
	}
	defer func() { _ = os.RemoveAll(stage) }() // what stays, the next build removes
	if err := do(stage); err != nil {
		return fmt.Errorf("build Kubernetes %s: %w", k.Version, err)
	}
	return nil
}

// run runs the go command and says now and then how far it is: a first build
// takes ten minutes.
func (k Kubernetes) run(ctx context.Context, say func(string), what string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = k.module
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
