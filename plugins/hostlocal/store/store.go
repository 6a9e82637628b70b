// Package store keeps reservations as files, as upstream's host-local does:
// in one directory per network a file per address, named after it, which
// holds the container's id and the interface's name; the address given last
// per range set; and the file everybody locks. The two can work on one
// directory at the same time. Inputs are owners and candidates; outputs are
// the addresses reserved. It refuses to reserve twice for one owner and never
// shows an empty or half-written reservation.
//
// One name is ours alone: an owner's marker, a hidden file that is linked to
// its reservations and so counts them. Upstream looks for reservations by
// reading all files; with the marker no file of another pod is opened. It
// holds what a reservation holds, so that upstream's DEL removes it as well.
package store

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Owner is whom an address is reserved for.
type Owner struct{ ContainerID, IfName string }

// content is what upstream writes into a reservation.
func (o Owner) content() string { return o.ContainerID + "\r\n" + o.IfName }

func (o Owner) marker() string {
	sum := sha256.Sum256([]byte(o.content()))
	return ".owner-" + hex.EncodeToString(sum[:8])
}

// Pick lists candidates in order of preference, given the address that its
// range set gave last (the zero Addr if unknown).
type Pick func(last netip.Addr) iter.Seq[netip.Addr]

// DuplicateError says that Owner holds addresses already.
type DuplicateError struct {
	Owner Owner
	Addrs []string
}

func (e *DuplicateError) Error() string {
	return fmt.Sprintf("interface %s of container %s has %v already", e.Owner.IfName, e.Owner.ContainerID, e.Addrs)
}

// ExhaustedError says that no candidate of a pick is free.
type ExhaustedError struct{ Pick int }

func (e *ExhaustedError) Error() string { return fmt.Sprintf("range set %d: no free address", e.Pick) }

// Dir is the directory of one network's reservations.
type Dir string

func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

// Reserve gives owner one address of each pick, or none at all.
//
// The content is written and synced before the lock is taken, so that pods
// which start together wait for the disk together; under the lock it only
// gets its names. The directory itself is not synced: a power cut ends the
// pods as well, so a name that is missing afterwards reserves nothing that is
// in use, and a name that is there has its full content.
func (d Dir) Reserve(owner Owner, picks []Pick) (addrs []netip.Addr, err error) {
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of reservations: %w", err)
	}
	marker := d.path(owner.marker())
	fd, err := d.mark(owner)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	unlock, err := d.lock()
	if err != nil {
		unix.Unlink(marker)
		return nil, err
	}
	defer unlock()
	// Another ADD for this owner may have come between: its marker replaced
	// ours, or ours is linked to its reservations.
	if n, err := links(fd); err != nil || n != 1 {
		return nil, errors.Join(err, d.duplicate(owner))
	}
	defer func() {
		if err != nil {
			for _, a := range addrs {
				unix.Unlink(d.path(a.String()))
			}
			unix.Unlink(marker)
			addrs = nil
		}
	}()
	for i, pick := range picks {
		a, err := d.take(marker, pick(d.last(i)))
		if err != nil {
			return addrs, err
		}
		if !a.IsValid() {
			return addrs, &ExhaustedError{i}
		}
		addrs = append(addrs, a)
		if err := d.setLast(i, a); err != nil {
			return addrs, fmt.Errorf("write last reserved address: %w", err)
		}
	}
	return addrs, nil
}

// mark writes the owner's marker and syncs it. A marker that is there without
// reservations is a killed ADD's.
func (d Dir) mark(owner Owner) (fd int, err error) {
	name := d.path(owner.marker())
	var st unix.Stat_t
	if unix.Lstat(name, &st) == nil {
		if st.Nlink > 1 {
			return -1, d.duplicate(owner)
		}
		unix.Unlink(name)
	}
	fd, err = write(name, unix.O_EXCL, owner.content())
	if err == nil {
		err = unix.Fsync(fd)
	}
	if err != nil {
		unix.Unlink(name)
		if fd >= 0 {
			unix.Close(fd)
		}
		return -1, fmt.Errorf("write reservation: %w", err)
	}
	return fd, nil
}

// take gives the marker the name of the first free candidate. link(2) fails
// where the name exists, so an address has one owner whatever goes wrong.
func (d Dir) take(marker string, candidates iter.Seq[netip.Addr]) (netip.Addr, error) {
	for a := range candidates {
		name := d.path(a.String())
		err := unix.Link(marker, name)
		if err == unix.EEXIST && isEmpty(name) {
			// An upstream ADD that was killed between making and writing it:
			// nobody else writes while we hold the lock, and no DEL finds it.
			unix.Unlink(name)
			err = unix.Link(marker, name)
		}
		if err == nil {
			return a, nil
		}
		if err != unix.EEXIST {
			return netip.Addr{}, fmt.Errorf("reserve %s: %w", a, err)
		}
	}
	return netip.Addr{}, nil
}

// Release removes owner's reservations; what is not there is released.
// expect says where to look first: if it names as many as wanted, and the
// marker counts no more, no other file is opened.
func (d Dir) Release(owner Owner, expect []netip.Addr, wanted int) error {
	if _, err := os.Stat(string(d)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()

	var errs []error
	released := 0
	for _, a := range expect {
		if d.holds(a.String(), owner.content()) {
			errs = append(errs, d.remove(a.String()))
			released++
		}
	}
	var marker unix.Stat_t
	counted := unix.Lstat(d.path(owner.marker()), &marker) == nil && marker.Nlink > 1
	if counted || released < max(wanted, 1) {
		errs = append(errs, d.releaseAll(owner))
	}
	errs = append(errs, d.remove(owner.marker()))
	return errors.Join(errs...)
}

// Holds reports whether a is reserved for owner.
func (d Dir) Holds(owner Owner, a netip.Addr) bool { return d.holds(a.String(), owner.content()) }

// releaseAll removes every file of owner's, or, if there is none, of an owner
// that knew no interface: host-local before 0.9 wrote the container's id only.
func (d Dir) releaseAll(owner Owner) error {
	names, err := d.find(owner.content())
	if err == nil && len(names) == 0 {
		names, err = d.find(owner.ContainerID)
	}
	errs := []error{err}
	for _, name := range names {
		errs = append(errs, d.remove(name))
	}
	return errors.Join(errs...)
}

func (d Dir) remove(name string) error {
	if err := unix.Unlink(d.path(name)); err != nil && err != unix.ENOENT {
		return fmt.Errorf("release %s: %w", name, err)
	}
	return nil
}

func (d Dir) duplicate(owner Owner) error {
	names, err := d.find(owner.content())
	return errors.Join(err, &DuplicateError{owner, names})
}

// find is the names of all files with that content.
func (d Dir) find(content string) ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, fmt.Errorf("list reservations: %w", err)
	}
	var names []string
	for _, e := range entries {
		if d.holds(e.Name(), content) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func lastFile(pick int) string { return "last_reserved_ip." + strconv.Itoa(pick) }

func (d Dir) last(pick int) netip.Addr {
	s, err := d.read(lastFile(pick))
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(s)
	return a
}

// setLast notes the place in the round. Losing it loses nothing else, so it
// is written without sync, and over what was there: truncating a file first
// makes ext4 write it to disk when it is closed.
func (d Dir) setLast(pick int, a netip.Addr) error {
	text := a.String()
	fd, err := write(d.path(lastFile(pick)), 0, text)
	if err != nil {
		return err
	}
	return errors.Join(unix.Ftruncate(fd, int64(len(text))), unix.Close(fd))
}
