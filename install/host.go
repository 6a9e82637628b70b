package install

import (
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// hostFile tells a program of the node's that Poplin's devices are none of its
// business.
type hostFile struct {
	dir, name string // below /etc
	content   []byte
}

var (
	//go:embed host/05-poplin.link
	udevLink []byte
	//go:embed host/05-poplin.network
	networkd []byte
	//go:embed host/90-poplin.conf
	networkManager []byte
)

// hostFiles are those of systemd-udevd, systemd-networkd and NetworkManager.
// The first of networkd's and udev's files that matches counts, and all of
// NetworkManager's.
func hostFiles() []hostFile {
	return []hostFile{
		{"systemd/network", "05-poplin.link", udevLink},
		{"systemd/network", "05-poplin.network", networkd},
		{"NetworkManager/conf.d", "90-poplin.conf", networkManager},
	}
}

// Host keeps other programs from the devices of Poplin, by files below etc, and
// returns those that it wrote. A program without its directory is not there.
func Host(etc string) (written []string, err error) {
	var errs []error
	for _, f := range hostFiles() {
		dir := filepath.Join(etc, f.dir)
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			errs = append(errs, fmt.Errorf("look for %s: %w", dir, err))
			continue
		}
		path := filepath.Join(dir, f.name)
		changed, err := File(path, 0o644, f.content)
		errs = append(errs, err)
		if changed {
			written = append(written, path)
		}
	}
	return written, errors.Join(errs...)
}

// HostFiles are all that Host may have written.
func HostFiles(etc string) (paths []string) {
	for _, f := range hostFiles() {
		paths = append(paths, filepath.Join(etc, f.dir, f.name))
	}
	return paths
}
