package apply

import (
	"context"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/wire"
)

// Events are changes of the table by anybody but one Kernel.
type Events struct {
	group *wire.Group
	own   uint32
}

// Subscribe begins to gather them.
func (k *Kernel) Subscribe() (*Events, error) {
	own, err := k.netfilter.Port()
	if err != nil {
		return nil, err
	}
	group, err := wire.Join(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
	if err != nil {
		return nil, err
	}
	return &Events{group, own}, nil
}

// Run calls changed for each until ctx ends.
func (e *Events) Run(ctx context.Context, changed func()) error {
	return e.group.Run(ctx, func(event wire.Event) {
		if event.Lost || event.Port != e.own && concerns(event) {
			changed()
		}
	})
}

// concerns tells our table's events from those of others. That of a new
// generation, at the end of each transaction, has no table.
func concerns(e wire.Event) bool {
	const tableName = 1 // in every kind of message
	if len(e.Body) < nfgenmsg || e.Body[0] != unix.NFPROTO_INET || e.Kind == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
		return false
	}
	return unix.ByteSliceToString(wire.Find(e.Body[nfgenmsg:], tableName)) == Name
}
