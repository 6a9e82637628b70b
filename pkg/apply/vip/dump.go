package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/vip/wire"
)

// dump asks for a list and returns the attributes of its entries. It receives
// by itself: the kernel fills buffers up to the size it was last asked with,
// and walks the whole map from its start for each of them. With pages, as the
// netlink package uses, a hundred thousand elements take seconds.
func (t *Table) dump(kind int, ask func(w *wire.Attrs)) ([][]byte, error) {
	var w wire.Attrs
	ask(&w)
	request := netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request | netlink.Dump},
		Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, w...),
	}
	for range 10 {
		if _, err := t.sock.Send(request); err != nil {
			return nil, fmt.Errorf("ask for list: %w", err)
		}
		list, err := t.receive()
		if !errors.Is(err, errInterrupted) {
			return list, err
		}
	}
	return nil, errInterrupted
}

// errInterrupted is a list that changed while it was given out.
var errInterrupted = errors.New("list keeps changing while it is read")

// receive collects the answers to a dump.
func (t *Table) receive() (list [][]byte, err error) {
	raw, err := t.sock.SyscallConn()
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 1<<16)
	interrupted := false
	for {
		var n int
		var failed error
		if err := raw.Read(func(fd uintptr) bool {
			n, _, failed = unix.Recvfrom(int(fd), buf, 0)
			return !errors.Is(failed, unix.EAGAIN)
		}); err != nil || failed != nil {
			return nil, fmt.Errorf("receive list: %w", errors.Join(err, failed))
		}
		messages, err := syscall.ParseNetlinkMessage(buf[:n])
		if err != nil {
			return nil, fmt.Errorf("parse list: %w", err)
		}
		for _, m := range messages {
			interrupted = interrupted || m.Header.Flags&unix.NLM_F_DUMP_INTR != 0
			switch m.Header.Type {
			case unix.NLMSG_DONE:
				if interrupted {
					return nil, errInterrupted
				}
				return list, nil
			case unix.NLMSG_ERROR:
				if len(m.Data) < 4 {
					return nil, errors.New("receive list: short error message")
				}
				return nil, unix.Errno(-int32(binary.NativeEndian.Uint32(m.Data)))
			}
			if len(m.Data) > 4 {
				list = append(list, slices.Clone(m.Data[4:]))
			}
		}
	}
}
