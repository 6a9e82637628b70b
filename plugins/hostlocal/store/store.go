// Package store keeps reservations as files, exactly as upstream's host-local
// does: in one directory per network a file per address, named after it,
// which holds the container's id and the interface's name; the address given
// last per range set; and the file everybody locks. The two can work on one
// directory at the same time. Inputs are owners and candidates; outputs are
// the addresses reserved. It refuses to reserve twice for one owner and never
// shows an empty or half-written reservation.
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
	"strings"

	"golang.org/x/sys/unix"
)

// Owner is whom an address is reserved for.
type Owner struct{ ContainerID, IfName string }

// content is what upstream writes into a reservation.
func (o Owner) content() string { return o.ContainerID + "\r\n" + o.IfName }

// draft names the file that becomes o's reservations. It holds what they
// hold, so that upstream's DEL, too, removes one that a killed ADD left.
func (o Owner) draft() string {
	sum := sha256.Sum256([]byte(o.content()))
	return ".reservation-" + hex.EncodeToString(sum[:8])
}

// Pick lists candidates in order of preference, given the address that its
// range set gave last (the zero Addr if unknown).
type Pick func(last netip.Addr) iter.Seq[netip.Addr]

// DuplicateError says that Owner holds an address already.
type DuplicateError struct {
	Owner Owner
	Addr  netip.Addr
}

func (e *DuplicateError) Error() string {
	return fmt.Sprintf("%s is reserved for interface %s of container %s already", e.Addr, e.Owner.IfName, e.Owner.ContainerID)
}

// ExhaustedError says that no candidate of a pick is free.
type ExhaustedError struct{ Pick int }

func (e *ExhaustedError) Error() string { return fmt.Sprintf("range set %d: no free address", e.Pick) }

// Dir is the directory of one network's reservations.
type Dir string

// Reserve gives owner one address of each pick, or none at all.
//
// The reservation is written and synced before the lock is taken, so that
// pods which start together wait for the disk together; under the lock it
// only gets its names. The directory itself is not synced: a power cut ends
// the pods as well, so a name that is missing afterwards reserves nothing
// that is in use, and a name that is there has its full content.
func (d Dir) Reserve(owner Owner, picks []Pick) (addrs []netip.Addr, err error) {
	if err := os.MkdirAll(string(d), 0o755); err != nil {
		return nil, fmt.Errorf("make directory of reservations: %w", err)
	}
	draft := d.path(owner.draft())
	if err := writeSynced(draft, owner.content()); err != nil {
		os.Remove(draft)
		return nil, fmt.Errorf("write reservation: %w", err)
	}
	defer os.Remove(draft)

	unlock, err := d.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	defer func() {
		if err != nil {
			for _, a := range addrs {
				os.Remove(d.path(a.String()))
			}
			addrs = nil
		}
	}()
	if held, err := d.held(owner); err != nil {
		return nil, err
	} else if len(held) > 0 {
		return nil, &DuplicateError{owner, held[0]}
	}
	for i, pick := range picks {
		a, err := d.take(draft, pick(d.last(i)))
		if err != nil {
			return addrs, err
		}
		if !a.IsValid() {
			return addrs, &ExhaustedError{i}
		}
		addrs = append(addrs, a)
		// Without sync, and in place as upstream writes it: losing it loses
		// the place in the round, nothing else.
		if err := os.WriteFile(d.lastFile(i), []byte(a.String()), 0o600); err != nil {
			return addrs, fmt.Errorf("write last reserved address: %w", err)
		}
	}
	return addrs, nil
}

// take gives draft the name of the first free candidate. link(2) fails where
// the name exists, so an address has one owner whatever else goes wrong.
func (d Dir) take(draft string, candidates iter.Seq[netip.Addr]) (netip.Addr, error) {
	for a := range candidates {
		err := os.Link(draft, d.path(a.String()))
		if err == nil {
			return a, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return netip.Addr{}, fmt.Errorf("reserve %s: %w", a, err)
		}
	}
	return netip.Addr{}, nil
}

// Release removes owner's reservations. Where expect names as many of them
// as wanted, no other file is opened. What is not there is released.
func (d Dir) Release(owner Owner, expect []netip.Addr, wanted int) error {
	if _, err := os.Stat(string(d)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unlock, err := d.lock()
	if err != nil {
		return err
	}
	defer unlock()

	var names []string
	for _, a := range expect {
		if d.holds(a.String(), owner.content()) {
			names = append(names, a.String())
		}
	}
	if len(names) < wanted || wanted == 0 {
		if names, err = d.find(owner.content()); err != nil {
			return err
		}
		if len(names) == 0 {
			// Written by a host-local older than 0.9, which knew no interface.
			if names, err = d.find(owner.ContainerID); err != nil {
				return err
			}
		}
	}
	// A draft that its ADD was killed before writing has no content yet.
	names = append(names, owner.draft())
	var errs []error
	for _, name := range names {
		if err := os.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("release %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Held is the addresses reserved for owner.
func (d Dir) Held(owner Owner) ([]netip.Addr, error) {
	if _, err := os.Stat(string(d)); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	unlock, err := d.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return d.held(owner)
}

func (d Dir) held(owner Owner) ([]netip.Addr, error) {
	names, err := d.find(owner.content())
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, name := range names {
		if a, err := netip.ParseAddr(name); err == nil {
			addrs = append(addrs, a)
		}
	}
	return addrs, nil
}

// find is the names of all files with that content, reservations or drafts.
func (d Dir) find(content string) ([]string, error) {
	dir, err := os.Open(string(d))
	if err != nil {
		return nil, fmt.Errorf("list reservations: %w", err)
	}
	defer dir.Close()
	all, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list reservations: %w", err)
	}
	var names []string
	for _, name := range all {
		if d.holds(name, content) {
			names = append(names, name)
		}
	}
	return names, nil
}

// holds reports whether the file has that content; what cannot be read does
// not, as somebody else's file must not stop a pod.
func (d Dir) holds(name, content string) bool {
	b, err := os.ReadFile(d.path(name))
	return err == nil && strings.TrimSpace(string(b)) == content
}

func (d Dir) path(name string) string { return filepath.Join(string(d), name) }

func (d Dir) lastFile(pick int) string { return d.path("last_reserved_ip." + strconv.Itoa(pick)) }

func (d Dir) last(pick int) netip.Addr {
	b, err := os.ReadFile(d.lastFile(pick))
	if err != nil {
		return netip.Addr{}
	}
	a, _ := netip.ParseAddr(strings.TrimSpace(string(b)))
	return a
}

// lock takes the lock that upstream takes. The kernel drops it with the
// process, so nobody waits for the dead.
func (d Dir) lock() (unlock func(), err error) {
	f, err := os.OpenFile(d.path("lock"), os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of reservations: %w", err)
	}
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err {
		case nil:
			return func() { f.Close() }, nil
		case unix.EINTR:
		default:
			f.Close()
			return nil, fmt.Errorf("lock reservations: %w", err)
		}
	}
}

// writeSynced makes a new file. One of that name is a killed ADD's, and may
// still be a reservation by another name: it is unlinked, not overwritten.
func writeSynced(name, content string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
