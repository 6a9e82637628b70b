package nft

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Watch calls changed whenever another program has changed the table, until
// ctx ends; only one caller can. A table with an owner nobody else can change, so there is nothing
// to wait for.
func (t *Table) Watch(ctx context.Context, changed func()) error {
	select {
	case <-ctx.Done():
		return nil
	case <-t.plain:
	}
	if err := t.events.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("subscribe to nftables events: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = t.events.SetReadDeadline(time.Now()) })()
	changed() // what happened before the subscription
	for {
		messages, err := t.events.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			changed()
			continue
		case err != nil:
			return fmt.Errorf("read nftables events: %w", err)
		}
		for _, m := range messages {
			if m.Header.PID != t.port.Load() && concerns(m) {
				changed()
				break
			}
		}
	}
}

// concerns tells our table's events from those of others: the name of the
// table is the first attribute of every kind that is about one.
func concerns(m netlink.Message) bool {
	const header = 4 // nfgenmsg
	if len(m.Data) < header || m.Data[0] != unix.NFPROTO_INET || m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
		return false
	}
	attrs, err := netlink.NewAttributeDecoder(m.Data[header:])
	if err != nil || !attrs.Next() {
		return true
	}
	return attrs.Type() == unix.NFTA_TABLE_NAME && attrs.String() == Name
}

// unprotected starts Watch: ours is a table that anybody may change.
func (t *Table) unprotected() { t.plainOnce.Do(func() { close(t.plain) }) }

// portOf is a socket's own netlink address, which the kernel puts on the
// events that its messages cause.
func portOf(sock *netlink.Conn) (uint32, error) {
	raw, err := sock.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("find port of nftables socket: %w", err)
	}
	var (
		addr    unix.Sockaddr
		errName error
	)
	err = raw.Control(func(fd uintptr) { addr, errName = unix.Getsockname(int(fd)) })
	if err := errors.Join(err, errName); err != nil {
		return 0, fmt.Errorf("find port of nftables socket: %w", err)
	}
	own, ok := addr.(*unix.SockaddrNetlink)
	if !ok {
		return 0, fmt.Errorf("find port of nftables socket: its address is a %T", addr)
	}
	return own.Pid, nil
}

// Counters are the packets that each counter of the table has seen.
func (t *Table) Counters() (map[string]uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, exists, err := t.lookup()
	if err != nil || !exists {
		return nil, err
	}
	counters, err := t.readCounters()
	if err != nil {
		return nil, errors.Join(err, t.reconnect())
	}
	return counters, nil
}

func (t *Table) readCounters() (map[string]uint64, error) {
	objects, err := t.conn.GetObjects(t.table)
	if err != nil {
		return nil, fmt.Errorf("list counters of table inet %s: %w", Name, err)
	}
	counters := map[string]uint64{}
	for _, o := range objects {
		if c, ok := o.(*nftables.CounterObj); ok {
			counters[c.Name] = c.Packets
		}
	}
	return counters, nil
}
