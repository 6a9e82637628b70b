package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/program/nft"
)

// Each walks over netlink attributes; a damaged one ends the walk.
func Each(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= 4 {
			n := int(binary.NativeEndian.Uint16(b))
			if n < 4 || n > len(b) || !yield(binary.NativeEndian.Uint16(b[2:])&typeMask, b[4:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

// typeMask leaves out the flags of an attribute's type.
const typeMask = 0x3fff

// Find returns the attribute at the end of a path of nested ones.
func Find(b []byte, path ...uint16) []byte {
	for kind, v := range Each(b) {
		if kind == path[0] {
			if len(path) == 1 {
				return v
			}
			return Find(v, path[1:]...)
		}
	}
	return nil
}

// LabelOf is the label that a rule asks connections for: nothing else of our
// rules compares as much.
func LabelOf(rule []byte) (l nft.Label, ok bool) {
	for _, e := range Each(Find(rule, unix.NFTA_RULE_EXPRESSIONS)) {
		v := Find(e, unix.NFTA_EXPR_DATA, unix.NFTA_CMP_DATA, unix.NFTA_DATA_VALUE)
		if String(Find(e, unix.NFTA_EXPR_NAME)) == "cmp" && len(v) == len(l) {
			return nft.Label(v), true
		}
	}
	return l, false
}

// String reads a text.
func String(b []byte) string {
	if n := len(b); n > 0 {
		return string(b[:n-1])
	}
	return ""
}

// Number reads a number, 0 where there is none.
func Number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// ErrInterrupted is a list that changed while it was given out, and may lack
// something.
var ErrInterrupted = errors.New("list keeps changing while it is read")

// Dump asks a netfilter subsystem for a list and hands over the attributes of
// each entry, which hold only during the call. It receives by itself: the
// kernel fills buffers up to the size it was last asked with, and walks a whole
// map from its start for each of them. With pages, as the netlink package uses,
// a hundred thousand elements take seconds.
func Dump(sock *netlink.Conn, subsystem, kind int, family byte, ask Attrs, each func([]byte)) error {
	if _, err := sock.Send(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(subsystem<<8 | kind), Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, ask...),
	}); err != nil {
		return fmt.Errorf("ask for list: %w", err)
	}
	raw, err := sock.SyscallConn()
	if err != nil {
		return err
	}
	buf := make([]byte, 1<<16)
	interrupted := false
	for {
		n, err := receive(raw, buf)
		if err != nil {
			return fmt.Errorf("receive list: %w", err)
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return fmt.Errorf("parse list: %w", err)
		}
		for _, m := range messages {
			interrupted = interrupted || m.Header.Flags&unix.NLM_F_DUMP_INTR != 0
			switch {
			case m.Header.Type == unix.NLMSG_DONE && interrupted:
				return ErrInterrupted
			case m.Header.Type == unix.NLMSG_DONE:
				return nil
			case m.Header.Type == unix.NLMSG_ERROR && len(m.Data) >= 4:
				return unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
			case len(m.Data) > 4:
				each(m.Data[4:])
			}
		}
	}
}

func receive(raw syscall.RawConn, buf []byte) (n int, err error) {
	wait := raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), buf, 0)
		return !errors.Is(err, unix.EAGAIN)
	})
	return n, errors.Join(wait, err)
}
