// Package images makes the images that pods of a test cluster run, without a
// registry. In: the built programs of Kubernetes and the programs of this
// machine that the tests call inside of them. Out: the directory of a
// containerd that has them all, under the names that upstream's manifests use,
// found again by a hash of what went into them, and copies of it for new nodes.
// It refuses to make an image of a program that is missing.
package images

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/install/image/oci"
)

// Names that others need to know.
const (
	Pause   = "registry.k8s.io/pause:3.10.2"
	Busybox = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"
)

// Source is what the images are made of.
type Source struct {
	Root     string // of this project, for the program pause
	Programs string // directory of the built programs of Kubernetes
	Agnhost  string // version, for the image's name
	CoreDNS  string // version, for the image's name
	// Lookup returns the path of a program of this machine, or "".
	Lookup func(name string) string
}

// CoreDNSName is the image of the cluster's DNS.
func (s Source) CoreDNSName() string { return "registry.k8s.io/coredns/coredns:" + s.CoreDNS }

// AgnhostName is the image of the tests' servers and clients.
func (s Source) AgnhostName() string { return "registry.k8s.io/e2e-test-images/agnhost:" + s.Agnhost }

// recipeVersion changes whenever an image is composed otherwise than before.
const recipeVersion = 1

// Set is all of them, made or not.
type Set struct {
	Dir string
}

// recipes are the images, each made as an archive first.
var recipes = []struct {
	file string
	make func(Source, *composer) (oci.Archive, error)
}{
	{"pause.tar", (Source).pause},
	{"coredns.tar", (Source).coredns},
	{"busybox.tar", (Source).busybox},
	{"agnhost.tar", (Source).agnhost},
	{"regression.tar", (Source).regression},
}

// Built says whether the set is complete.
func (s Set) Built() bool { return exists(s.Dir) }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// Find names the set that the source makes, built or not.
func (s Source) Find(cache string) (Set, error) {
	sum := sha256.New()
	fmt.Fprintf(sum, "recipe %d %s %s %s %s\n", recipeVersion, runtime.GOARCH, filepath.Base(s.Programs), s.Agnhost, s.CoreDNS)
	fmt.Fprintf(sum, "regression %v\n", exists(filepath.Join(s.Programs, "regression-issue-74839")))
	pause, err := os.ReadFile(filepath.Join(s.Root, pauseSource))
	if err != nil {
		return Set{}, fmt.Errorf("find images: %w", err)
	}
	sum.Write(pause)
	for _, name := range slices.Sorted(slices.Values(append(userland, "busybox", "dash", "containerd"))) {
		path := s.Lookup(name)
		info, err := os.Stat(path)
		if err != nil {
			return Set{}, fmt.Errorf("find images: program %s is missing; install it first (cluster tools)", name)
		}
		fmt.Fprintf(sum, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
	}
	return Set{Dir: filepath.Join(cache, "images", hex.EncodeToString(sum.Sum(nil))[:16])}, nil
}

// Build makes a set if it is not there. As with the programs: complete or not
// there at all, one process at a time.
func (s Source) Build(ctx context.Context, set Set) error {
	if set.Built() {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(set.Dir), 0o755); err != nil {
		return fmt.Errorf("make images: %w", err)
	}
	lock, err := os.OpenFile(set.Dir+".lock", os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("make images: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("make images: wait for another run: %w", err)
	}
	if set.Built() {
		return nil
	}
	stage := set.Dir + ".new"
	if err := errors.Join(os.RemoveAll(stage), os.MkdirAll(stage, 0o755)); err != nil {
		return fmt.Errorf("make images: %w", err)
	}
	defer func() { _ = os.RemoveAll(stage) }() // what stays, the next run removes
	work := filepath.Join(stage, "work")
	if err := os.Mkdir(work, 0o755); err != nil {
		return fmt.Errorf("make images: %w", err)
	}
	archives, err := s.write(ctx, work)
	if err != nil {
		return err
	}
	if err := s.grow(ctx, work, filepath.Join(stage, "seed"), archives); err != nil {
		return fmt.Errorf("make images: %w", err)
	}
	if err := errors.Join(os.RemoveAll(work), os.Rename(stage, set.Dir)); err != nil {
		return fmt.Errorf("make images: %w", err)
	}
	return nil
}

// write makes the archives in dir.
func (s Source) write(ctx context.Context, dir string) (archives []string, err error) {
	compose := &composer{ctx: ctx, find: s.Lookup, work: dir}
	for _, r := range recipes {
		archive, err := r.make(s, compose)
		if errors.Is(err, errNotBuilt) {
			continue
		}
		file := filepath.Join(dir, r.file)
		if err == nil {
			err = archive.Write(file)
		}
		if err != nil {
			return nil, fmt.Errorf("make image %s: %w", r.file, err)
		}
		archives = append(archives, file)
	}
	return archives, nil
}

// errNotBuilt: the conformance suite's own program is built only on request.
var errNotBuilt = errors.New("not built")

const pauseSource = "test/cluster/images/pause/main.go"

func (s Source) pause(c *composer) (oci.Archive, error) {
	program := filepath.Join(c.work, "pause")
	cmd := exec.CommandContext(c.ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", program, "./"+filepath.Dir(pauseSource))
	cmd.Dir, cmd.Env = s.Root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return oci.Archive{}, fmt.Errorf("build pause: %w: %s", err, out)
	}
	return oci.Archive{
		// kubelets and tests of other versions ask for other tags of the same
		Names: []string{Pause, "registry.k8s.io/pause:3.10.1", "registry.k8s.io/pause:3.10"},
		Images: []oci.Image{{Platform: platform, Entrypoint: []string{"/pause"}, User: "65535:65535", Env: env,
			Files: []oci.File{{Path: "/pause", Mode: 0o755, Source: program}}}},
	}, nil
}

func (s Source) coredns(*composer) (oci.Archive, error) {
	return s.single("coredns", s.CoreDNSName())
}

func (s Source) regression(*composer) (oci.Archive, error) {
	if !exists(filepath.Join(s.Programs, "regression-issue-74839")) {
		return oci.Archive{}, errNotBuilt
	}
	return s.single("regression-issue-74839", "registry.k8s.io/e2e-test-images/regression-issue-74839:1.4")
}

// single is the image of one static program.
func (s Source) single(program, name string) (oci.Archive, error) {
	return oci.Archive{
		Names: []string{name},
		Images: []oci.Image{{Platform: platform, Entrypoint: []string{"/" + program}, Env: env, WorkingDir: "/",
			Files: []oci.File{{Path: "/" + program, Mode: 0o755, Source: filepath.Join(s.Programs, program)}}}},
	}, nil
}

const platform = "linux/" + runtime.GOARCH

var env = []string{"PATH=" + strings.Join([]string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}, ":")}
