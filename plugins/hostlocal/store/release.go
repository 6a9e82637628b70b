package store

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Release removes owner's reservations; what is not there is released.
// expect says where to look first: if it names as many as wanted, and the
// marker counts no more, no other file is opened.
func (s *Store) Release(owner Owner, expect []netip.Addr, wanted int) error {
	unlock, err := s.lock()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()

	var first []string
	for _, a := range expect {
		if s.holds(a.String(), owner.content()) {
			first = append(first, a.String())
		}
	}
	s.rest(first)
	errs := []error{s.remove(first...)}
	var marker unix.Stat_t
	counted := unix.Lstat(s.path(owner.marker()), &marker) == nil && marker.Nlink > 1
	if counted || len(first) < max(wanted, 1) {
		errs = append(errs, s.releaseAll(owner, first))
	}
	errs = append(errs, s.remove(owner.marker()))
	return errors.Join(errs...)
}

// Holds reports whether a is reserved for owner.
func (s *Store) Holds(owner Owner, a netip.Addr) bool { return s.holds(a.String(), owner.content()) }

// releaseAll removes every file of owner's but those that are done already,
// or, if there is none, of an owner that knew no interface: host-local before
// 0.9 wrote the container's id only.
func (s *Store) releaseAll(owner Owner, done []string) error {
	names, err := s.find(owner.content())
	if err == nil && len(names) == 0 && len(done) == 0 {
		names, err = s.find(owner.ContainerID)
	}
	s.rest(names)
	return errors.Join(err, s.remove(names...))
}

// Collect releases what belongs to none of keep. An attachment whose link is
// still there keeps its addresses and is an error; Collect goes on.
func (s *Store) Collect(keep []Owner) error {
	unlock, err := s.lock()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()

	kept := map[Owner]bool{}
	for _, o := range keep {
		kept[o], kept[Owner{ContainerID: o.ContainerID}] = true, true
	}
	owned, err := s.all()
	errs := []error{err}
	for owner, names := range owned {
		if kept[owner] || s.busy(owner) {
			continue
		}
		switch linked, err := s.Kernel.Linked(owner.ContainerID, owner.IfName); {
		case err != nil || linked:
			errs = append(errs, errors.Join(err, fmt.Errorf("release %v of container %s: its link is still there", names, owner.ContainerID)))
		default:
			s.rest(names)
			errs = append(errs, s.remove(names...))
		}
	}
	return errors.Join(append(errs, s.removeEmpty())...)
}

// removeEmpty removes what was made and not written: nobody writes while we
// hold the lock. It spares the files of somebody who is alive and whose
// reservation was spoilt later.
func (s *Store) removeEmpty() error {
	entries, err := os.ReadDir(s.Dir)
	errs := []error{err}
	for _, e := range entries {
		var st unix.Stat_t
		if unix.Lstat(s.path(e.Name()), &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > 0 {
			continue
		}
		a, err := netip.ParseAddr(e.Name())
		dead := err != nil && st.Nlink == 1 && isReservation(e.Name())
		if err == nil {
			used, unknown := s.Kernel.Routed(a)
			dead = !used && unknown == nil
		}
		if dead {
			errs = append(errs, s.remove(e.Name()))
		}
	}
	return errors.Join(errs...)
}

// all is the names of each owner's files.
func (s *Store) all() (map[Owner][]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return nil, fmt.Errorf("list reservations: %w", err)
	}
	owned := map[Owner][]string{}
	for _, e := range entries {
		if !isReservation(e.Name()) {
			continue
		}
		if owner, ok := s.owner(e.Name()); ok {
			owned[owner] = append(owned[owner], e.Name())
		}
	}
	return owned, nil
}

// find is the names of all files with that content.
func (s *Store) find(content string) ([]string, error) {
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return nil, fmt.Errorf("list reservations: %w", err)
	}
	var names []string
	for _, e := range entries {
		if s.holds(e.Name(), content) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// alive reports whether what owner holds is in use, as far as one can know.
func (s *Store) alive(owner Owner) bool {
	if s.busy(owner) {
		return true
	}
	linked, err := s.Kernel.Linked(owner.ContainerID, owner.IfName)
	return linked || err != nil
}

// busy reports whether an ADD for owner still runs.
func (s *Store) busy(owner Owner) bool {
	fd, err := unix.Open(s.path(owner.marker()), readOnly, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB) == unix.EWOULDBLOCK
}

// remove removes markers last: as long as there is one, somebody will look for
// what it counts.
func (s *Store) remove(names ...string) error {
	addrs, markers := []string(nil), []string(nil)
	for _, name := range names {
		if strings.HasPrefix(name, markerPrefix) {
			markers = append(markers, name)
		} else {
			addrs = append(addrs, name)
		}
	}
	var errs []error
	for _, name := range append(addrs, markers...) {
		err := unix.Unlink(s.path(name))
		// A read-only filesystem says so before it looks for the name.
		if err != nil && err != unix.ENOENT && !(err == unix.EROFS && !exists(s.path(name))) {
			errs = append(errs, fmt.Errorf("release %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// isReservation reports whether name is one of an address or of a marker.
func isReservation(name string) bool {
	_, err := netip.ParseAddr(name)
	return err == nil || strings.HasPrefix(name, markerPrefix)
}
