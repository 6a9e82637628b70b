package store

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Files are read and written without os.File, which costs ten system calls
// where three do: it asks the poller about each file. A link is not followed,
// and a FIFO that somebody put there must not stop a pod.
const readOnly = unix.O_RDONLY | unix.O_CLOEXEC | unix.O_NONBLOCK | unix.O_NOFOLLOW

// holds reports whether the file has that content. One that cannot be read
// has not: somebody else's file must not stop a pod.
func (s *Store) holds(name, content string) bool {
	text, err := s.read(name)
	return err == nil && text == content
}

func (s *Store) read(name string) (string, error) { return read(s.path(name)) }

// maxFile is more than any file of ours holds.
const maxFile = 1 << 20

// read is what a regular file holds, without space around it.
func read(path string) (string, error) {
	fd, err := unix.Open(path, readOnly, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxFile {
		return "", unix.EINVAL
	}
	b := make([]byte, st.Size)
	n, err := unix.Read(fd, b)
	return strings.TrimSpace(string(b[:max(n, 0)])), err
}

// write fills a file from its start and leaves it open.
func write(path string, flags int, content string) (fd int, err error) {
	fd, err = unix.Open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_NOFOLLOW|flags, 0o600)
	if err != nil {
		return -1, err
	}
	n, err := unix.Write(fd, []byte(content))
	if err == nil && n < len(content) {
		err = unix.ENOSPC
	}
	if err != nil {
		if flags&unix.O_EXCL != 0 {
			_ = unix.Unlink(path)
		}
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// overwrite replaces a file's content in place.
func overwrite(path, content string) error {
	fd, err := write(path, 0, content)
	if err != nil {
		return err
	}
	return errors.Join(unix.Ftruncate(fd, int64(len(content))), unix.Close(fd))
}

func exists(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil
}

func isEmpty(path string) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0
}

func syncDir(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fsync(fd), unix.Close(fd))
}

// lock takes the lock that upstream takes. The kernel drops it with the
// process, so nobody waits for the dead.
func (s *Store) lock() (unlock func(), err error) {
	const name = "lock"
	for {
		fd, err := unix.Open(s.path(name), unix.O_CREAT|readOnly, 0o600)
		if err == unix.ELOOP || err == unix.EISDIR || err == unix.ENXIO {
			if err := s.quarantine(name, "no file to lock"); err != nil {
				return nil, err
			}
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open lock of reservations: %w", err)
		}
		if err := flock(fd); err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("lock reservations: %w", err)
		}
		// It may have been put aside while we waited.
		var mine, now unix.Stat_t
		if unix.Fstat(fd, &mine) == nil && unix.Lstat(s.path(name), &now) == nil && mine.Ino == now.Ino && mine.Dev == now.Dev {
			return func() { unix.Close(fd) }, nil
		}
		unix.Close(fd)
	}
}

func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); err != unix.EINTR {
			return err
		}
	}
}
