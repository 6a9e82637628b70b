package isolation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Refused says that a pod may not send yet, and why. The same may be tried
// again later.
type Refused struct{ why string }

func (e *Refused) Error() string { return e.why }

// errAbsent: nobody listens.
var errAbsent = errors.New("poplind does not run")

// Asked is a question that was put; nil is one that need not be.
type Asked struct {
	namespace, file string
	deadline        time.Time
	socket          int
	err             error // of putting it
}

// Ask puts a question to the daemon at socket, without waiting for its answer.
// file is for the case that no daemon is there.
func Ask(socket, file string, q Question) *Asked {
	a := &Asked{namespace: q.Namespace, file: file, deadline: time.Now().Add(Patience), socket: -1}
	a.err = a.put(socket, q)
	return a
}

// Close ends it, answered or not.
func (a *Asked) Close() {
	if a != nil && a.socket >= 0 {
		unix.Close(a.socket)
	}
}

// Wait returns nil when the pod may send, or else a Refused.
func (a *Asked) Wait() error {
	if a == nil {
		return nil
	}
	err := a.err
	if err == nil {
		err = a.answer()
	}
	if errors.Is(err, errAbsent) {
		err = a.last()
	}
	if err != nil {
		return &Refused{err.Error()}
	}
	return nil
}

func (a *Asked) put(path string, q Question) error {
	body, err := json.Marshal(q)
	if err != nil {
		return fmt.Errorf("ask poplind: %w", err)
	}
	if a.socket, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("ask poplind: open socket: %w", err)
	}
	// A connection waits like what is sent over it while a daemon that hangs
	// accepts nobody.
	err = a.patiently(unix.SO_SNDTIMEO, func() error { return unix.Connect(a.socket, &unix.SockaddrUnix{Name: path}) })
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED):
		return errAbsent
	case err != nil:
		return fmt.Errorf("ask poplind at %s: %w", path, err)
	}
	request := fmt.Appendf(nil, "POST %s HTTP/1.0\r\nHost: poplind\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", Path, len(body), body)
	for len(request) > 0 {
		n := 0
		err := a.patiently(unix.SO_SNDTIMEO, func() (err error) {
			n, err = unix.SendmsgN(a.socket, request, nil, nil, unix.MSG_NOSIGNAL)
			return err
		})
		if err != nil {
			return fmt.Errorf("ask poplind at %s: %w", path, err)
		}
		request = request[n:]
	}
	return nil
}

// maxAnswer is more than an answer has that is of use.
const maxAnswer = 4 << 10

// answer reads until the daemon hangs up.
func (a *Asked) answer() error {
	text := make([]byte, 0, maxAnswer)
	for len(text) < cap(text) {
		n := 0
		err := a.patiently(unix.SO_RCVTIMEO, func() (err error) {
			n, err = unix.Read(a.socket, text[len(text):cap(text)])
			return err
		})
		if err != nil {
			return fmt.Errorf("wait for poplind's word that policies hold for the pod: %w", err)
		}
		if n <= 0 {
			break
		}
		text = text[:len(text)+n]
	}
	return verdict(text)
}

// verdict is what an answer means.
func verdict(answer []byte) error {
	head, body, whole := bytes.Cut(answer, []byte("\r\n\r\n"))
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	var minor, code int
	if _, err := fmt.Sscanf(string(line), "HTTP/1.%d %d", &minor, &code); err != nil || !whole {
		return fmt.Errorf("ask poplind: its answer makes no sense: %.80q", line)
	}
	if code != 200 {
		return fmt.Errorf("poplind answers %d: %s", code, strings.TrimSpace(string(body)))
	}
	return nil
}

// patiently does something with the socket that takes no longer than is left.
func (a *Asked) patiently(limit int, do func() error) error {
	for {
		left := time.Until(a.deadline)
		if left < time.Millisecond { // the kernel takes 0 for no limit
			return fmt.Errorf("no answer within %v", Patience)
		}
		wait := unix.NsecToTimeval(int64(left))
		err := unix.SetsockoptTimeval(a.socket, unix.SOL_SOCKET, limit, &wait)
		if err == nil {
			err = do()
		}
		// A limit has signals interrupt what would go on without one.
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			return err
		}
	}
}

// last decides by what the daemon last knew.
func (a *Asked) last() error {
	text, err := os.ReadFile(a.file)
	if err != nil {
		return fmt.Errorf("%w, and what it last knew of policies cannot be read: %w", errAbsent, err)
	}
	namespaces, err := ParseNamespaces(text)
	if err != nil {
		return fmt.Errorf("%w, and what it last knew of policies cannot be read: %s: %w", errAbsent, a.file, err)
	}
	if namespaces.Free(a.namespace) {
		return nil
	}
	if _, known := namespaces[a.namespace]; !known {
		return fmt.Errorf("%w, and when it last did there was no namespace %s: its pods start when poplind runs", errAbsent, a.namespace)
	}
	return fmt.Errorf("%w, and policies are about pods of namespace %s: they start when poplind runs", errAbsent, a.namespace)
}
