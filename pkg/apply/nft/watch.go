package nft

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/nftables"
)

// Watch calls changed whenever another program has changed the table, until
// ctx ends; only one caller can. A table with an owner nobody else can change,
// so there is nothing to wait for.
func (t *Table) Watch(ctx context.Context, changed func()) error { return t.others.Watch(ctx, changed) }

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
