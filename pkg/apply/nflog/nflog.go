// Package nflog hears of the packets that nftables rules log to a group of
// nfnetlink_log. Inputs are a group and what the kernel sends; outputs are
// packets with the prefix of their rule, and how often the kernel had to leave
// some out because nobody read them in time. It refuses to hold anything back:
// who asks for packets must take them, and the kernel never waits.
package nflog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/wire"
)

// Of linux/netfilter/nfnetlink_log.h, which golang.org/x/sys lacks.
const (
	subsystem = 4
	message   = 0 // NFULNL_MSG_PACKET
	configure = 1 // NFULNL_MSG_CONFIG

	cfgCommand, cfgMode, cfgTimeout = 1, 2, 4 // NFULA_CFG_*
	bind                            = 1       // NFULNL_CFG_CMD_BIND
	copyPacket                      = 2       // NFULNL_COPY_PACKET

	attrPayload, attrPrefix = 9, 10 // NFULA_*
)

const (
	// delay is how long the kernel collects packets for one message, in
	// hundredths of a second.
	delay = 20
	// bufferSize holds some thousand packets.
	bufferSize = 1 << 20
)

// Log is one group, which nobody else can listen to meanwhile.
type Log struct{ sock *netlink.Conn }

// Open binds a group; netns is a descriptor of a network namespace, or 0 for
// that of the calling thread.
func Open(group uint16, netns int) (*Log, error) {
	sock, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("open socket for logged packets: %w", err)
	}
	_ = sock.SetReadBuffer(bufferSize) // a smaller one overruns earlier
	l := &Log{sock}
	if err := l.bind(group); err != nil {
		sock.Close()
		return nil, fmt.Errorf("listen to log group %d (is nfnetlink_log missing from the kernel, or another program listening?): %w", group, err)
	}
	return l, nil
}

func (l *Log) bind(group uint16) error {
	var command, mode wire.Attrs
	command.Bytes(cfgCommand, []byte{bind})
	// All of what the rule sends.
	mode.Bytes(cfgMode, append(binary.BigEndian.AppendUint32(nil, 1<<16), copyPacket, 0))
	mode.U32(cfgTimeout, delay)
	for _, attrs := range []wire.Attrs{command, mode} {
		header := []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, byte(group >> 8), byte(group)}
		_, err := l.sock.Execute(netlink.Message{
			Header: netlink.Header{Type: subsystem<<8 | configure, Flags: netlink.Request | netlink.Acknowledge},
			Data:   append(header, attrs...),
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Close ends a Read, and lets others have the group.
func (l *Log) Close() error { return l.sock.Close() }

// Read calls each for every packet, and overrun whenever the kernel says that
// it had to leave some out, until ctx ends.
func (l *Log) Read(ctx context.Context, each func(prefix string, p Packet), overrun func()) error {
	defer context.AfterFunc(ctx, func() { _ = l.sock.SetReadDeadline(time.Now()) })()
	for {
		messages, err := l.sock.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			overrun()
			continue
		case err != nil:
			return fmt.Errorf("read logged packets: %w", err)
		}
		for _, m := range messages {
			const header = 4 // nfgenmsg
			if m.Header.Type != subsystem<<8|message || len(m.Data) < header {
				continue
			}
			attrs := m.Data[header:]
			if p, ok := Parse(wire.Find(attrs, attrPayload)); ok {
				each(wire.String(wire.Find(attrs, attrPrefix)), p)
			}
		}
	}
}
