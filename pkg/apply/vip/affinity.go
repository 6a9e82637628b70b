package vip

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/vip/wire"
	"poplin.dev/poplin/pkg/program/vip"
)

// expel deletes what clients are remembered for endpoints that a change took
// from a group: they get another one.
func (t *Table) expel(c vip.Change) error {
	if len(c.Delete.Endpoints) == 0 || len(t.mirror.program.Timeouts) == 0 {
		return nil
	}
	type member struct {
		group uint32
		addr  netip.AddrPort
	}
	gone := map[member]bool{}
	for s, a := range c.Delete.Endpoints {
		gone[member{s.Group, a}] = true
	}
	for s, a := range c.Put.Endpoints { // moved to another slot
		delete(gone, member{s.Group, a})
	}
	sticky := map[uint32]bool{}
	for f := range t.mirror.program.Timeouts {
		sticky[t.mirror.program.Frontends[f].Group()] = true
		sticky[t.mirror.program.Outside[f].Group()] = true
	}
	for m := range gone {
		if !sticky[m.group] {
			delete(gone, m)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	for _, name := range []string{"affinity4", "affinity6"} {
		if err := t.forget(name, func(group uint32, a netip.AddrPort) bool { return gone[member{group, a}] }); err != nil {
			return err
		}
	}
	return nil
}

// forget deletes elements of an affinity map. One may time out between the
// listing and the deletion, which fails the batch: then it is tried again.
func (t *Table) forget(name string, which func(group uint32, a netip.AddrPort) bool) error {
	var err error
	for range 5 {
		var known []element
		if known, err = t.elements(name); err != nil {
			return err
		}
		b := wire.NewBatch(Name)
		l := list{b: b, op: unix.NFT_MSG_DELSETELEM, name: name}
		for _, e := range known {
			a, ok := readEndpoint(e.data)
			if n := len(e.key) - 4; ok && n > 0 && which(binary.NativeEndian.Uint32(e.key[n:]), a) {
				l.element(func(w *wire.Attrs) { elemKey(w, func(b []byte) []byte { return append(b, e.key...) }) })
			}
		}
		l.end()
		if err = b.Send(t.sock); !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err := t.reopen(); err != nil {
			return err
		}
	}
	return err
}

// reopen is reconnect for an error that leaves the mirror true.
func (t *Table) reopen() error {
	m := t.mirror
	if err := t.reconnect(); err != nil {
		return err
	}
	t.mirror = m
	return t.ensure()
}
