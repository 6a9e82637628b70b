package store

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Moment is a time that no setting of a clock changes: a boot, and how long
// it is up.
type Moment struct {
	Boot string
	Up   time.Duration
}

// Now reads the machine's.
func Now() (Moment, error) {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return Moment{}, fmt.Errorf("read the boot's id: %w", err)
	}
	var up unix.Timespec
	// Counts time asleep, during which others forget a released address, too.
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &up); err != nil {
		return Moment{}, fmt.Errorf("read the time since boot: %w", err)
	}
	return Moment{strings.TrimSpace(string(b)), time.Duration(up.Nano())}, nil
}

const (
	bootFile     = "boot"
	releasedFile = "released"
	// restTime is longer than the kernel remembers a UDP flow without answer
	// (nf_conntrack_udp_timeout), and than a pod needs to vanish from Services.
	restTime = 30 * time.Second
)

func (s *Store) state(name string) string { return filepath.Join(s.State, name) }

// refresh releases the reservations of an earlier boot: every boot's first
// caller finds them, before there are new ones. An unknown boot releases
// nothing. It is synced, as the one thing that a power cut must not take: it
// tells that there was one.
func (s *Store) refresh(now Moment) error {
	known, err := read(s.state(bootFile))
	if known == now.Boot && err == nil {
		return nil
	}
	if len(known) == len(now.Boot) {
		if err := s.releaseEarlier(); err != nil {
			return err
		}
	}
	if err := s.noteBoot(now.Boot); err != nil {
		return fmt.Errorf("note the boot of reservations: %w", err)
	}
	return nil
}

func (s *Store) noteBoot(boot string) error {
	if err := os.MkdirAll(s.State, 0o700); err != nil {
		return err
	}
	next := s.state(bootFile + ".next")
	if err := os.RemoveAll(next); err != nil {
		return err
	}
	fd, err := write(next, unix.O_EXCL, boot)
	if err == nil {
		err = errors.Join(unix.Fsync(fd), unix.Close(fd))
	}
	if err != nil {
		_ = unix.Unlink(next)
		return err
	}
	if err := unix.Rename(next, s.state(bootFile)); err != nil {
		return err
	}
	for _, dir := range []string{s.State, filepath.Dir(s.State), filepath.Dir(filepath.Dir(s.State))} {
		if err := syncDir(dir); err != nil {
			return err
		}
	}
	return nil
}

// releaseEarlier releases what markers say is ours and has no link. What
// upstream reserved may be of this boot, so it stays.
func (s *Store) releaseEarlier() error {
	owned, err := s.all()
	if err != nil {
		return err
	}
	var errs []error
	for owner, names := range owned {
		ours := exists(s.path(owner.marker()))
		if ours && !s.alive(owner) {
			errs = append(errs, s.remove(names...))
		}
	}
	return errors.Join(append(errs, s.removeEmpty())...)
}

// resting is the addresses released a short while ago, and when.
func (s *Store) resting(now Moment) map[netip.Addr]time.Duration {
	text, err := read(s.state(releasedFile))
	boot, rest, _ := strings.Cut(text, "\n")
	if err != nil || boot != now.Boot {
		return nil
	}
	found := map[netip.Addr]time.Duration{}
	for line := range strings.Lines(rest) {
		name, at, _ := strings.Cut(strings.TrimSpace(line), " ")
		a, err := netip.ParseAddr(name)
		n, bad := strconv.ParseInt(at, 10, 64)
		if since := now.Up - time.Duration(n); err == nil && bad == nil && since >= 0 && since < restTime {
			found[a] = time.Duration(n)
		}
	}
	return found
}

// rest notes that addresses are being released. It may fail, which is no
// reason to keep them: that they rest is a courtesy to those who still send
// there.
func (s *Store) rest(names []string) {
	var addrs []netip.Addr
	for _, name := range names {
		if a, err := netip.ParseAddr(name); err == nil {
			addrs = append(addrs, a)
		}
	}
	now, err := s.Clock()
	if err != nil || len(addrs) == 0 {
		return
	}
	all := s.resting(now)
	if all == nil {
		all = map[netip.Addr]time.Duration{}
	}
	for _, a := range addrs {
		all[a] = now.Up
	}
	var text strings.Builder
	text.WriteString(now.Boot + "\n")
	for a, at := range all {
		fmt.Fprintf(&text, "%s %d\n", a, at)
	}
	err = overwrite(s.state(releasedFile), text.String())
	if errors.Is(err, unix.ENOENT) && os.MkdirAll(s.State, 0o700) == nil {
		_ = overwrite(s.state(releasedFile), text.String())
	}
}

// quarantine moves a file away from where it harms, for a person to look at.
func (s *Store) quarantine(name, why string) error {
	const most = 100
	dir := s.state("quarantine")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("put %s aside, which is %s: %w", s.path(name), why, err)
	}
	for i := range most {
		to := filepath.Join(dir, fmt.Sprintf("%s.%d", strings.TrimPrefix(name, "."), i))
		err := unix.Renameat2(unix.AT_FDCWD, s.path(name), unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
		if err == unix.EEXIST {
			continue
		}
		if err != nil {
			return fmt.Errorf("put %s aside, which is %s: %w", s.path(name), why, err)
		}
		s.Warn(fmt.Sprintf("%s: %s; it is now %s", s.path(name), why, to))
		return nil
	}
	return fmt.Errorf("put %s aside, which is %s: %s is full; remove what is in it", s.path(name), why, dir)
}

// writable finds out whether a reservation could be written.
func (s *Store) writable() error {
	if err := unix.Access(s.Dir, unix.W_OK); err != nil {
		return fmt.Errorf("write to %s: %w", s.Dir, err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(s.Dir, &fs); err != nil {
		return fmt.Errorf("look at the filesystem of %s: %w", s.Dir, err)
	}
	if fs.Blocks > 0 && fs.Bfree == 0 || fs.Files > 0 && fs.Ffree == 0 {
		return fmt.Errorf("write to %s: %w", s.Dir, unix.ENOSPC)
	}
	return nil
}
