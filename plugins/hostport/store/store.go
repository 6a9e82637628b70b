// Package store keeps which host ports a pod has, in a file per attachment:
// what stands there is put into the kernel, and put back when it is lost.
// Inputs are entries; outputs are those of all attachments. A file is there
// whole or not at all. It refuses to follow links, and to stop a pod because
// of another's damaged file.
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/hostport/plan"
)

// Entry is one attachment's host ports.
type Entry struct {
	// Link is the host's end of the pod's link, and the file's name: an entry
	// ends with its link.
	Link        string `json:"-"`
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifName"`
	// Pod is its name, for people.
	Pod      string         `json:"pod,omitempty"`
	Elements []plan.Element `json:"elements"`
}

// String names the pod.
func (e Entry) String() string {
	if e.Pod != "" {
		return "pod " + e.Pod
	}
	return "container " + e.ContainerID
}

const suffix = ".json"

func path(dir, link string) string { return filepath.Join(dir, link+suffix) }

// Has reports whether there is a file for the link. It is all that a pod
// without host ports pays for, and takes no lock.
func Has(dir, link string) bool {
	var st unix.Stat_t
	return unix.Lstat(path(dir, link), &st) == nil
}

// Dir is a directory of entries, locked.
type Dir struct {
	name string
	lock int
}

// Open makes the directory if need be, and waits for the lock. The kernel
// drops that with the process, so nobody waits for the dead.
func Open(dir string) (Dir, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Dir{}, fmt.Errorf("make directory of host ports: %w", err)
	}
	return open(dir, unix.O_CREAT)
}

// OpenExisting is Open for those who only take away: without a directory, or
// without the lock of a first entry, there is nothing, and ok is false.
func OpenExisting(dir string) (d Dir, ok bool, err error) {
	d, err = open(dir, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return d, false, nil
	}
	return d, err == nil, err
}

func open(dir string, flags int) (Dir, error) {
	fd, err := unix.Open(filepath.Join(dir, "lock"), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|flags, 0o600)
	if err != nil {
		return Dir{}, fmt.Errorf("open lock of host ports in %s: %w", dir, err)
	}
	for {
		switch err := unix.Flock(fd, unix.LOCK_EX); err {
		case nil:
			return Dir{dir, fd}, nil
		case unix.EINTR:
		default:
			unix.Close(fd)
			return Dir{}, fmt.Errorf("lock host ports in %s: %w", dir, err)
		}
	}
}

// Close unlocks the directory.
func (d Dir) Close() { unix.Close(d.lock) }

// List is all entries. One that cannot be read has no elements and its error
// is joined to the others; the list is of use all the same.
func (d Dir) List() (list []Entry, damaged error, err error) {
	files, err := os.ReadDir(d.name)
	if err != nil {
		return nil, nil, fmt.Errorf("list host ports: %w", err)
	}
	for _, f := range files {
		link, ok := strings.CutSuffix(f.Name(), suffix)
		if !ok || strings.HasPrefix(link, ".") {
			continue
		}
		e, err := d.read(link)
		if err != nil {
			damaged = errors.Join(damaged, fmt.Errorf("host ports in %s are not served (delete the pod, so that it is made again): %w", path(d.name, link), err))
			e.Elements = nil
		}
		list = append(list, e)
	}
	return list, damaged, nil
}

func (d Dir) read(link string) (Entry, error) {
	e := Entry{Link: link}
	// O_NONBLOCK: a FIFO that somebody put there must not stop a pod.
	f, err := os.OpenFile(path(d.name, link), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return e, err
	}
	defer f.Close()
	if err := json.NewDecoder(f).Decode(&e); err != nil {
		return e, err
	}
	e.Link = link
	for _, element := range e.Elements {
		if !element.Valid() {
			return e, fmt.Errorf("%+v is no host port", element)
		}
	}
	return e, nil
}

// Save writes an entry. It is synced before it gets its name, so that no
// crash leaves an empty one.
func (d Dir) Save(e Entry) error {
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("save host ports of %s: %w", e, err)
	}
	// One name for all, as they are saved one at a time: what a crash leaves
	// of one is overwritten by the next.
	temporary := filepath.Join(d.name, ".new")
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("save host ports of %s: %w", e, err)
	}
	_, err = f.Write(append(text, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temporary, path(d.name, e.Link))
	}
	if err != nil {
		os.Remove(temporary)
		return fmt.Errorf("save host ports of %s: %w", e, err)
	}
	return nil
}

// Remove ends an entry; one that is not there has ended.
func (d Dir) Remove(link string) error {
	if err := os.Remove(path(d.name, link)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove host ports: %w", err)
	}
	return nil
}
