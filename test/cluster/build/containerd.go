package build

import (
	"context"
	"fmt"
	"path/filepath"
)

// Containerd is the version of test/cluster/containerd, for nodes that run
// another than the machine's.
type Containerd struct{ Module }

// Programs that a Containerd's Dir holds.
const (
	ContainerdDaemon = "containerd"
	ContainerdShim   = "containerd-shim-runc-v2"
	ContainerdClient = "ctr"
)

func (c Containerd) flags() []string {
	return []string{"-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X github.com/containerd/containerd/v2/version.Version=" + c.Version}
}

// FindContainerd reads the module in root.
func FindContainerd(root, cache, goVersion string) (Containerd, error) {
	c := Containerd{Module{source: filepath.Join(root, "test/cluster/containerd")}}
	versions, err := c.required("github.com/containerd/containerd/v2")
	if err != nil {
		return c, err
	}
	c.Version = versions[0]
	sum, err := c.hash(goVersion, c.flags())
	c.Dir = filepath.Join(cache, "containerd", sum)
	return c, err
}

// Build builds the programs if they are not there.
func (c Containerd) Build(ctx context.Context, say func(string)) error {
	err := c.once(c.Program(ContainerdDaemon), func(stage string) error {
		if err := c.run(ctx, say, "containerd", append(append([]string{"build", "-v"}, c.flags()...), "-o", stage+"/", "tool")...); err != nil {
			return err
		}
		return c.become(stage)
	})
	if err != nil {
		return fmt.Errorf("build containerd %s: %w", c.Version, err)
	}
	return nil
}
