// Package store keeps reservations as files, as upstream's host-local does:
// in one directory per network a file per address, named after it, which
// holds the container's id and the interface's name; the address given last
// per range set; and the file everybody locks. The two can work on one
// directory at the same time. Inputs are owners and candidates; outputs are
// the addresses reserved. It refuses to reserve twice for one owner, and to
// release what an ADD that still runs or a link that is still there holds.
//
// One name is ours alone: an owner's marker, a hidden file that is linked to
// its reservations and so counts them. Upstream looks for reservations by
// reading all files; with the marker no file of another pod is opened. It
// holds what a reservation holds, so that upstream's DEL removes it as well,
// and the ADD that makes it keeps it locked while it runs.
//
// A second directory has what upstream's has no room for: the boot of the
// last reservation, when addresses were released, and files that stood in an
// address' way.
package store

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

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

// Kernel knows what files cannot: who is attached, and which addresses are
// in use.
type Kernel interface {
	Linked(containerID, ifName string) (bool, error)
	Routed(netip.Addr) (bool, error)
}

// Store is one network's reservations.
type Store struct {
	// Dir has the reservations, State what is ours alone. Both are made when
	// needed, and have to be on one filesystem for quarantine to work.
	Dir, State string
	Kernel     Kernel
	Clock      func() (Moment, error)
	// Warn tells of a file that is not as it should be.
	Warn func(string)
}

func (s *Store) path(name string) string { return filepath.Join(s.Dir, name) }

// Reserve gives owner one address of each pick, or none at all. Until done is
// called or the process ends, nobody takes the reservation for a dead one.
//
// Nothing is synced: a power cut ends the pods as well, so a reservation that
// is missing afterwards reserves nothing in use, and one that lost its
// content is released with all others of that boot.
func (s *Store) Reserve(owner Owner, picks []Pick) (addrs []netip.Addr, done func(), err error) {
	now, unlock, err := s.enter()
	if err != nil {
		return nil, nil, err
	}
	defer unlock()
	marker, fd, err := s.mark(owner)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			for _, a := range addrs {
				_ = unix.Unlink(s.path(a.String()))
			}
			_ = unix.Unlink(marker)
			unix.Close(fd)
			addrs = nil
		}
	}()
	resting := s.resting(now)
	for i, pick := range picks {
		a, err := s.take(marker, pick(s.last(i)), resting)
		if err != nil {
			return addrs, nil, err
		}
		if !a.IsValid() {
			return addrs, nil, &ExhaustedError{i}
		}
		addrs = append(addrs, a)
		s.setLast(i, a)
	}
	return addrs, func() { unix.Close(fd) }, nil
}

// Free asks whether each pick has an address to give. What Reserve would
// release or put aside first counts as free.
func (s *Store) Free(picks []Pick) error {
	_, unlock, err := s.enter()
	if err != nil {
		return err
	}
	defer unlock()
	if err := s.writable(); err != nil {
		return err
	}
	for i, pick := range picks {
		if !s.gives(pick(netip.Addr{})) {
			return &ExhaustedError{i}
		}
	}
	return nil
}

func (s *Store) gives(candidates iter.Seq[netip.Addr]) bool {
	for a := range candidates {
		var st unix.Stat_t
		if unix.Lstat(s.path(a.String()), &st) != nil {
			return true
		}
		if _, ok := s.owner(a.String()); !ok {
			used, err := s.Kernel.Routed(a)
			return err == nil && !used
		}
	}
	return false
}

// enter takes the lock and releases what an earlier boot left.
func (s *Store) enter() (now Moment, unlock func(), err error) {
	unlock, err = s.lock()
	if errors.Is(err, unix.ENOENT) {
		if err := os.MkdirAll(s.Dir, 0o700); err != nil {
			return now, nil, fmt.Errorf("make directory of reservations: %w", err)
		}
		unlock, err = s.lock()
	}
	if err != nil {
		return now, nil, err
	}
	if now, err = s.Clock(); err == nil {
		err = s.refresh(now)
	}
	if err != nil {
		unlock()
		return now, nil, err
	}
	return now, unlock, nil
}

// mark writes the owner's marker, and locks it for as long as it is open. A
// marker that is there is that of an ADD that still runs, of an attachment, or
// of an ADD that was killed; the last is cleared away.
func (s *Store) mark(owner Owner) (name string, fd int, err error) {
	name = s.path(owner.marker())
	fd, err = write(name, unix.O_EXCL, owner.content())
	if errors.Is(err, unix.EEXIST) {
		if s.alive(owner) {
			names, err := s.find(owner.content())
			return name, -1, errors.Join(err, &DuplicateError{owner, names})
		}
		err = s.releaseAll(owner, nil)
		switch {
		case err != nil || !exists(name):
		case isEmpty(name):
			err = s.remove(owner.marker())
		default: // not a file, or not with its content
			err = s.quarantine(owner.marker(), "no reservation of container "+owner.ContainerID)
		}
		if err == nil {
			fd, err = write(name, unix.O_EXCL, owner.content())
		}
	}
	if err == nil {
		err = unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		if fd >= 0 {
			_ = unix.Unlink(name)
			unix.Close(fd)
		}
		return name, -1, fmt.Errorf("write reservation: %w", err)
	}
	return name, fd, nil
}

// take gives the marker the name of the first free candidate. link(2) fails
// where the name exists, so an address has one owner whatever goes wrong. An
// address that rests is better than none, and the one that rested longest is
// best; a file that stands for no reservation is looked for last.
func (s *Store) take(marker string, candidates iter.Seq[netip.Addr], resting map[netip.Addr]time.Duration) (netip.Addr, error) {
	var rested, taken []netip.Addr
	for a := range candidates {
		if _, ok := resting[a]; ok {
			rested = append(rested, a)
			continue
		}
		ok, err := s.claim(marker, a)
		if ok || err != nil {
			return a, err
		}
		taken = append(taken, a)
	}
	slices.SortStableFunc(rested, func(a, b netip.Addr) int { return cmp.Compare(resting[a], resting[b]) })
	for _, a := range rested {
		ok, err := s.claim(marker, a)
		if ok || err != nil {
			return a, err
		}
		taken = append(taken, a)
	}
	for _, a := range taken {
		if !s.cleared(a) {
			continue
		}
		ok, err := s.claim(marker, a)
		if ok || err != nil {
			return a, err
		}
	}
	return netip.Addr{}, nil
}

func (s *Store) claim(marker string, a netip.Addr) (bool, error) {
	err := unix.Link(marker, s.path(a.String()))
	if err == nil || err == unix.EEXIST {
		return err == nil, nil
	}
	return false, fmt.Errorf("reserve %s: %w", a, err)
}

// cleared puts aside a file that is in an address' way and reserves it for
// nobody. It stays where it is as long as the address is in use: somebody may
// have spoiled the reservation of a pod that lives.
func (s *Store) cleared(a netip.Addr) bool {
	name := a.String()
	if _, ok := s.owner(name); ok {
		return false
	}
	used, err := s.Kernel.Routed(a)
	switch {
	case err != nil:
		s.Warn(fmt.Sprintf("%s names no container: not given to a pod, as it is not known whether it is in use: %v", s.path(name), err))
		return false
	case used:
		s.Warn(fmt.Sprintf("%s names no container: not given to a pod, as there is a route to %s", s.path(name), a))
		return false
	}
	if err := s.quarantine(name, "names no container"); err != nil {
		s.Warn(err.Error())
		return false
	}
	return true
}

func lastFile(pick int) string { return "last_reserved_ip." + strconv.Itoa(pick) }

func (s *Store) last(pick int) netip.Addr {
	text, err := s.read(lastFile(pick))
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(text)
	return a
}

// setLast notes the place in the round. Losing it loses nothing else, so it
// may fail. It is written over what was there: truncating a file first makes
// ext4 write it to disk when it is closed.
func (s *Store) setLast(pick int, a netip.Addr) {
	name := s.path(lastFile(pick))
	err := overwrite(name, a.String())
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.ENXIO) {
		if s.quarantine(lastFile(pick), "no file") == nil {
			_ = overwrite(name, a.String())
		}
	}
}
