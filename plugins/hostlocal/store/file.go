package store

import (
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// Files are read and written without os.File, which costs ten system calls
// where three do: it asks the poller about each file.

// holds reports whether the file has that content. One that cannot be read
// has not: somebody else's file must not stop a pod.
func (d Dir) holds(name, content string) bool {
	s, err := d.read(name)
	return err == nil && s == content
}

// read is a file's beginning, more than any reservation holds, without space
// around it.
func (d Dir) read(name string) (string, error) {
	// O_NONBLOCK: a FIFO that somebody put there must not stop a pod either.
	fd, err := unix.Open(d.path(name), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	var b [1024]byte
	n, err := unix.Read(fd, b[:])
	return strings.TrimSpace(string(b[:max(n, 0)])), err
}

// write fills a file from its start and leaves it open.
func write(name string, flags int, content string) (fd int, err error) {
	fd, err = unix.Open(name, unix.O_WRONLY|unix.O_CREAT|unix.O_CLOEXEC|flags, 0o600)
	if err != nil {
		return -1, err
	}
	n, err := unix.Write(fd, []byte(content))
	if err == nil && n < len(content) {
		err = unix.ENOSPC
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func isEmpty(name string) bool {
	var st unix.Stat_t
	return unix.Lstat(name, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0
}

// links is how many names an open file has.
func links(fd int) (uint64, error) {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return uint64(st.Nlink), err
}

// lock takes the lock that upstream takes. The kernel drops it with the
// process, so nobody waits for the dead.
func (d Dir) lock() (unlock func(), err error) {
	fd, err := unix.Open(d.path("lock"), unix.O_CREAT|unix.O_RDONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock of reservations: %w", err)
	}
	for {
		switch err := unix.Flock(fd, unix.LOCK_EX); err {
		case nil:
			return func() { unix.Close(fd) }, nil
		case unix.EINTR:
		default:
			unix.Close(fd)
			return nil, fmt.Errorf("lock reservations: %w", err)
		}
	}
}
