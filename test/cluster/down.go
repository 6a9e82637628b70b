package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"poplin.dev/poplin/test/cluster/place"
	"poplin.dev/poplin/test/cluster/progress"
	"poplin.dev/poplin/test/cluster/remains"
)

// Down takes a cluster down, whole or what is left of one. It says so when
// there is none, which is no error.
func Down(ctx context.Context, name string, out io.Writer) error {
	if err := checkName(name); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("root is missing: run this as root (sudo), it removes namespaces and mounts")
	}
	if found, err := remains.Any(name); err != nil || !found {
		if err == nil {
			fmt.Fprintf(out, "         there is no cluster %s\n", name)
		}
		return err
	}
	if dir, err := place.Lock(name); err == nil {
		defer dir.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	start := time.Now()
	if err := remains.Remove(ctx, name); err != nil {
		return err
	}
	progress.New(out).Line(time.Since(start), "cluster "+name+" is down")
	return nil
}
