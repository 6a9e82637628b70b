// Package monitor hears what other programs do to an nftables table of ours.
// Inputs are the table's name and the socket by which we change it ourselves;
// output is a call whenever somebody else has. It refuses to listen where the
// kernel keeps others from the table: there is nothing to hear.
package monitor

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Monitor is for one table of family inet.
type Monitor struct {
	table  string
	events *netlink.Conn
	// port is our socket's address: changes that bear it are our own.
	port atomic.Uint32
	// plain is closed once the kernel is known not to protect the table.
	plain     chan struct{}
	plainOnce sync.Once
}

// Open connects to the kernel; netns is a descriptor of a network namespace,
// or 0 for that of the calling thread.
func Open(table string, netns int) (*Monitor, error) {
	events, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("open socket for nftables events: %w", err)
	}
	// A burst beyond the buffer is no loss, the socket reports it; a larger
	// one only makes that rare.
	_ = events.SetReadBuffer(1 << 20)
	return &Monitor{table: table, events: events, plain: make(chan struct{})}, nil
}

// Close ends a Watch.
func (m *Monitor) Close() error { return m.events.Close() }

// Own names the socket by which we change the table from now on.
func (m *Monitor) Own(sock *netlink.Conn) error {
	raw, err := sock.SyscallConn()
	if err != nil {
		return fmt.Errorf("find port of nftables socket: %w", err)
	}
	var (
		addr    unix.Sockaddr
		errName error
	)
	err = raw.Control(func(fd uintptr) { addr, errName = unix.Getsockname(int(fd)) })
	if err := errors.Join(err, errName); err != nil {
		return fmt.Errorf("find port of nftables socket: %w", err)
	}
	own, ok := addr.(*unix.SockaddrNetlink)
	if !ok {
		return fmt.Errorf("find port of nftables socket: its address is a %T", addr)
	}
	m.port.Store(own.Pid)
	return nil
}

// Unprotected says that anybody may change the table: a Watch begins.
func (m *Monitor) Unprotected() { m.plainOnce.Do(func() { close(m.plain) }) }

// Watch calls changed whenever another program has changed the table, until
// ctx ends; only one caller can.
func (m *Monitor) Watch(ctx context.Context, changed func()) error {
	select {
	case <-ctx.Done():
		return nil
	case <-m.plain:
	}
	if err := m.events.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("subscribe to nftables events: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = m.events.SetReadDeadline(time.Now()) })()
	changed() // what happened before the subscription
	for {
		messages, err := m.events.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			changed()
			continue
		case err != nil:
			return fmt.Errorf("read nftables events: %w", err)
		}
		for _, e := range messages {
			if e.Header.PID != m.port.Load() && m.concerns(e) {
				changed()
				break
			}
		}
	}
}

// concerns tells our table's events from those of others: the name of the
// table is the first attribute of every kind that is about one.
func (m *Monitor) concerns(e netlink.Message) bool {
	const header = 4 // nfgenmsg
	if len(e.Data) < header || e.Data[0] != unix.NFPROTO_INET || e.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
		return false
	}
	attrs, err := netlink.NewAttributeDecoder(e.Data[header:])
	if err != nil || !attrs.Next() {
		return true
	}
	return attrs.Type() == unix.NFTA_TABLE_NAME && attrs.String() == m.table
}
