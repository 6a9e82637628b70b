package store

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Reservation is what one owner has.
type Reservation struct {
	Owner Owner
	Addrs []netip.Addr
	// Ours says that it was made by this package, which tells by the marker
	// whether its ADD still runs: Busy.
	Ours, Busy bool
}

// Survey is what there is in a network's directories.
type Survey struct {
	Reservations []Reservation
	// Resting is how long released addresses go on resting.
	Resting map[netip.Addr]time.Duration
	// Spoilt are addresses whose files name nobody.
	Spoilt []netip.Addr
}

// Survey reads without the lock, as it changes nothing: what it returns may be
// past.
func (s *Store) Survey() (Survey, error) {
	found := Survey{Resting: map[netip.Addr]time.Duration{}}
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, os.ErrNotExist) {
		return found, nil
	}
	if err != nil {
		return found, err
	}
	at := map[Owner]int{}
	for _, e := range entries {
		if !isReservation(e.Name()) {
			continue
		}
		a, notAddress := netip.ParseAddr(e.Name())
		owner, ok := s.owner(e.Name())
		if !ok {
			if notAddress == nil && exists(s.path(e.Name())) {
				found.Spoilt = append(found.Spoilt, a)
			}
			continue
		}
		i, known := at[owner]
		if !known {
			i = len(found.Reservations)
			at[owner] = i
			found.Reservations = append(found.Reservations, Reservation{Owner: owner, Ours: exists(s.path(owner.marker())), Busy: s.busy(owner)})
		}
		if notAddress == nil {
			found.Reservations[i].Addrs = append(found.Reservations[i].Addrs, a)
		}
	}
	for _, r := range found.Reservations {
		slices.SortFunc(r.Addrs, netip.Addr.Compare)
	}
	if now, err := s.Clock(); err == nil {
		for a, since := range s.resting(now) {
			if !exists(s.path(a.String())) {
				found.Resting[a] = restTime - (now.Up - since)
			}
		}
	}
	return found, nil
}

// Reclaim releases all that owner has, if no ADD of it runs and gone says so
// once more while nobody else can reserve anything.
func (s *Store) Reclaim(owner Owner, gone func() (bool, error)) (released bool, err error) {
	unlock, err := s.lock()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unlock()
	if s.busy(owner) {
		return false, nil
	}
	names, err := s.find(owner.content())
	if err != nil || len(names) == 0 {
		return false, err
	}
	if ok, err := gone(); !ok || err != nil {
		return false, err
	}
	return true, s.remove(names...)
}
