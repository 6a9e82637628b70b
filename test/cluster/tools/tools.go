// Package tools gathers what a cluster is made of. In: what is wanted.
// Out: its programs and images, installed or built where they are not there yet.
// It refuses to go on without Go, or outside of the project's source.
package tools

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"poplin.dev/poplin/test/cluster/build"
	"poplin.dev/poplin/test/cluster/host"
	"poplin.dev/poplin/test/cluster/images"
	"poplin.dev/poplin/test/cluster/progress"
)

// Want says which tools.
type Want struct {
	Kubernetes  string // version; "" is the project's
	Conformance bool   // also Kubernetes' conformance suite
	Containerd  bool   // also a containerd newer than the machine's
}

// Tools are the programs and images.
type Tools struct {
	Root       string // of the project
	Kubernetes build.Kubernetes
	Containerd build.Containerd // of no use unless wanted
	Images     images.Set
	CoreDNS    string // name of the image
}

// Prepare makes what is not there; where all is, it costs milliseconds.
func Prepare(ctx context.Context, want Want, s *progress.Steps) (Tools, error) {
	t, cache, err := find(ctx, want)
	if err != nil {
		return t, err
	}
	if err := s.Do("programs of the machine", func() error {
		installed, err := host.Install(ctx, host.Tools())
		if len(installed) > 0 {
			s.Say("installed %s", strings.Join(installed, " "))
		}
		return err
	}); err != nil {
		return t, err
	}
	if err := t.buildAll(ctx, want, s); err != nil {
		return t, err
	}
	source := images.Source{Root: t.Root, Programs: t.Kubernetes.Dir, Agnhost: t.Kubernetes.Agnhost, CoreDNS: t.Kubernetes.CoreDNS, Lookup: host.Program}
	t.CoreDNS = source.CoreDNSName()
	return t, s.Do("images of the tests", func() error {
		if t.Images, err = source.Find(cache); err != nil {
			return err
		}
		return source.Build(ctx, t.Images)
	})
}

// Programs makes only Kubernetes' programs.
func Programs(ctx context.Context, s *progress.Steps) (Tools, error) {
	t, _, err := find(ctx, Want{})
	if err != nil {
		return t, err
	}
	return t, t.buildAll(ctx, Want{}, s)
}

// find says where things are or will be.
func find(ctx context.Context, want Want) (t Tools, cache string, err error) {
	goVersion, err := host.Go(ctx)
	if err != nil {
		return t, "", err
	}
	if t.Root, err = ProjectRoot(); err != nil {
		return t, "", err
	}
	if cache, err = os.UserCacheDir(); err != nil {
		return t, "", fmt.Errorf("find cache: %w", err)
	}
	cache = filepath.Join(cache, "poplin")
	if t.Kubernetes, err = build.Find(t.Root, cache, want.Kubernetes, goVersion); err != nil {
		return t, cache, err
	}
	t.Containerd, err = build.FindContainerd(t.Root, cache, goVersion)
	return t, cache, err
}

func (t Tools) buildAll(ctx context.Context, want Want, s *progress.Steps) error {
	if !t.Kubernetes.Built() {
		s.Say("building Kubernetes %s, once: about ten minutes on two cores", t.Kubernetes.Version)
	}
	say := func(line string) { s.Say("%s", line) }
	if err := s.Do("Kubernetes "+t.Kubernetes.Version+" in "+t.Kubernetes.Dir, func() error {
		if want.Conformance {
			return t.Kubernetes.Conformance(ctx, say)
		}
		return t.Kubernetes.Build(ctx, say)
	}); err != nil || !want.Containerd {
		return err
	}
	return s.Do("containerd "+t.Containerd.Version+" in "+t.Containerd.Dir, func() error { return t.Containerd.Build(ctx, say) })
}

// ProjectRoot walks up from the working directory, or from this program, to
// the project's go.mod.
func ProjectRoot() (string, error) {
	var from []string
	if dir, err := os.Getwd(); err == nil {
		from = append(from, dir)
	}
	if program, err := os.Executable(); err == nil {
		from = append(from, filepath.Dir(program))
	}
	for _, dir := range from {
		for ; ; dir = filepath.Dir(dir) {
			b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
			if err == nil && strings.HasPrefix(string(b), "module poplin.dev/poplin\n") {
				return dir, nil
			}
			if dir == filepath.Dir(dir) {
				break
			}
		}
	}
	return "", errors.New("find Poplin's source: neither the working directory nor this program is in it; change to the directory with its go.mod")
}
