package door

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	"poplin.dev/poplin/install/image/oci"
	"poplin.dev/poplin/test/cluster"
)

// BackendImage is what LoadBackend brings to every node.
const BackendImage = "poplin.dev/test/backend:dev"

// LoadBackend makes an image of test/ingress/backend, whose files go to a
// directory, and loads it.
func LoadBackend(ctx context.Context, c *cluster.Cluster, dir string) error {
	root, err := cluster.ProjectRoot()
	if err != nil {
		return err
	}
	program, archive := filepath.Join(dir, "backend"), filepath.Join(dir, "backend.tar")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", program, "./test/ingress/backend")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the back end: %w: %s", err, out)
	}
	image := oci.Archive{Names: []string{BackendImage}, Images: []oci.Image{{
		Platform: "linux/" + runtime.GOARCH, Entrypoint: []string{"/backend"}, User: "65532:65532",
		Files: []oci.File{{Path: "/backend", Mode: 0o755, Source: program}},
	}}}
	if err := image.Write(archive); err != nil {
		return err
	}
	return c.LoadImage(ctx, archive, "")
}
