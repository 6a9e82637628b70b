// Package build makes the programs of a real Kubernetes from their Go modules.
// In: the nested modules test/cluster/kubernetes and test/cluster/containerd,
// whose tool lines are the list, and a cache directory. Out: for each a directory
// of programs, complete or not there at all, found again by a hash of all that
// went into it. It refuses a version of Kubernetes for which there is no such
// module.
package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Kubernetes is one version, not necessarily built yet.
type Kubernetes struct {
	Module
	CoreDNS string // "v1.14.0"
	Agnhost string // "2.63.0"
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
		if version == "" && filepath.Base(k.source) == "kubernetes" || k.Version == want || strings.HasPrefix(k.Version, want+".") {
			sum, err := k.hash(goVersion, k.flags(), "coredns/main.go")
			k.Dir = filepath.Join(cache, "kubernetes", sum)
			return k, err
		}
	}
	return Kubernetes{}, fmt.Errorf("find Kubernetes %s: known is %s; add a module test/cluster/kubernetes-VERSION for another", version, strings.Join(known, ", "))
}

// read takes the versions from a module's go.mod.
func read(source string) (Kubernetes, error) {
	k := Kubernetes{Module: Module{source: source}, Agnhost: agnhostVersion}
	versions, err := k.required("k8s.io/kubernetes", "github.com/coredns/coredns")
	if err == nil {
		k.Version, k.CoreDNS = versions[0], versions[1]
	}
	return k, err
}

// Built says whether the programs are there.
func (k Kubernetes) Built() bool { return exists(k.Program(Kubelet)) }

// Build builds the programs if they are not there. Several builds at once wait
// for each other; one that dies leaves nothing that could be taken for whole.
func (k Kubernetes) Build(ctx context.Context, say func(string)) error {
	return k.only(k.Program(Kubelet), func(stage string) error {
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
		return k.become(stage)
	})
}

// certificates takes along the files that agnhost's image has beside its
// program, so that the module cache is not needed again.
func (k Kubernetes) certificates(ctx context.Context, stage string) error {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes")
	cmd.Dir = k.source
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
	return k.only(k.Program("e2e.test"), func(stage string) error {
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

// only is once with errors that name the version.
func (k Kubernetes) only(goal string, do func(stage string) error) error {
	if err := k.once(goal, do); err != nil {
		return fmt.Errorf("build Kubernetes %s: %w", k.Version, err)
	}
	return nil
}
