package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"poplin.dev/poplin/test/cluster/build"
	"poplin.dev/poplin/test/cluster/host"
	"poplin.dev/poplin/test/cluster/images"
)

// tools are the programs and images that a cluster is made of.
type tools struct {
	root       string
	kubernetes build.Kubernetes
	source     images.Source
	images     images.Set
}

// Tools installs and builds everything that Up needs and, with conformance, the
// conformance suite of Kubernetes; it starts nothing.
func Tools(ctx context.Context, version string, conformance bool, out io.Writer) error {
	if err := host.Check(1); err != nil {
		return err
	}
	_, err := prepare(ctx, version, conformance, &steps{out: out})
	return err
}

// Conformance returns the directory with the programs of the conformance suite:
// e2e.test, ginkgo and kubectl.
func (c *Cluster) Conformance() (dir string, err error) {
	dir = c.Kubernetes.Dir
	if _, err := os.Stat(filepath.Join(dir, "e2e.test")); err != nil {
		return "", fmt.Errorf("find conformance suite: it is not built; run: cluster tools --conformance")
	}
	return dir, nil
}

// prepare makes what is not there; where all is, it costs milliseconds.
func prepare(ctx context.Context, version string, conformance bool, s *steps) (tools, error) {
	var t tools
	goVersion, err := host.Go(ctx)
	if err != nil {
		return t, err
	}
	if t.root, err = ProjectRoot(); err != nil {
		return t, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return t, fmt.Errorf("find cache: %w", err)
	}
	cache = filepath.Join(cache, "poplin")
	if t.kubernetes, err = build.Find(t.root, cache, version, goVersion); err != nil {
		return t, err
	}
	if err := s.do("programs of the machine", func() error {
		installed, err := host.Install(ctx, host.Tools())
		if len(installed) > 0 {
			s.say("installed %s", strings.Join(installed, " "))
		}
		return err
	}); err != nil {
		return t, err
	}
	if err := t.buildAll(ctx, conformance, s); err != nil {
		return t, err
	}
	t.source = images.Source{Root: t.root, Programs: t.kubernetes.Dir, Agnhost: t.kubernetes.Agnhost, CoreDNS: t.kubernetes.CoreDNS, Lookup: host.Program}
	return t, s.do("images of the tests", func() error {
		if t.images, err = t.source.Find(cache); err != nil {
			return err
		}
		return t.source.Build(ctx, t.images)
	})
}

func (t tools) buildAll(ctx context.Context, conformance bool, s *steps) error {
	if !t.kubernetes.Built() {
		s.say("building Kubernetes %s, once: about ten minutes on two cores", t.kubernetes.Version)
	}
	return s.do("Kubernetes "+t.kubernetes.Version+" in "+t.kubernetes.Dir, func() error {
		say := func(line string) { s.say("%s", line) }
		if conformance {
			return t.kubernetes.Conformance(ctx, say)
		}
		return t.kubernetes.Build(ctx, say)
	})
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
