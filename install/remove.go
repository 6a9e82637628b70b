package install

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Remove removes files and directories with all that is in them, and what a
// crash may have left beside them. It goes on past errors, and returns what
// was there.
func Remove(paths ...string) (removed []string, err error) {
	var errs []error
	for _, path := range paths {
		dir, base := filepath.Split(path)
		left, err := filepath.Glob(filepath.Join(dir, "."+base+".*.tmp"))
		errs = append(errs, err)
		for _, p := range append(left, path) {
			if _, err := os.Lstat(p); errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err := os.RemoveAll(p); err != nil {
				errs = append(errs, fmt.Errorf("remove %s: %w", p, err))
				continue
			}
			removed = append(removed, p)
		}
	}
	return removed, errors.Join(errs...)
}
