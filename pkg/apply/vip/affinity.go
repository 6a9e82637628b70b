package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/table"
	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/program/vip"
)

// member is an endpoint in a group.
type member struct {
	group uint32
	addr  netip.AddrPort
}

// expel deletes what clients are remembered for endpoints that a change took
// from a group: they get another one. A group's number may be used again one
// day, and must then remember nobody.
func (t *Table) expel(c vip.Change) error {
	if len(c.Delete.Endpoints) == 0 {
		return nil
	}
	gone := map[member]bool{}
	for s, a := range c.Delete.Endpoints {
		if t.mirror.sticky[s.Group] {
			gone[member{s.Group, a}] = true
		}
	}
	for s, a := range c.Put.Endpoints { // moved to another slot
		delete(gone, member{s.Group, a})
	}
	if len(gone) == 0 {
		return nil
	}
	return t.forgetClients(func(m member) bool { return gone[m] })
}

// note finds the groups whose clients stay. Such a group is never one of
// another kind before its number is used again, and a listing in vain would be
// all that costs.
func (m *mirror) note(p vip.Program) {
	for _, values := range []map[vip.Front]vip.Value{p.Frontends, p.Outside} {
		for _, v := range values {
			if v.IsSticky() {
				m.sticky[v.Group()] = true
			}
		}
	}
}

// sweep does for all endpoints what expel does for those of a change: an
// earlier process may have ended between the two.
func (t *Table) sweep(endpoints map[vip.Slot]netip.AddrPort) error {
	members := sync.OnceValue(func() map[member]bool { // seldom is a client remembered
		m := make(map[member]bool, len(endpoints))
		for s, a := range endpoints {
			m[member{s.Group, a}] = true
		}
		return m
	})
	return t.forgetClients(func(m member) bool { return !members()[m] })
}

func (t *Table) forgetClients(of func(member) bool) error {
	for _, name := range []string{"affinity4", "affinity6"} {
		if err := t.forgetIn(name, of); err != nil {
			return fmt.Errorf("delete clients of endpoints that are gone from map %s: %w", name, err)
		}
	}
	return nil
}

// forgetIn deletes elements of one map. One may time out between the listing
// and the deletion, which fails the batch: then it is tried again.
func (t *Table) forgetIn(name string, of func(member) bool) error {
	var err error
	for range 5 {
		var known []table.Element
		if known, err = t.kernel.Elements(name); err != nil {
			return err
		}
		b := t.kernel.NewBatch()
		l := table.List{Batch: b, Op: table.Delete, Name: name}
		for _, e := range known {
			a, ok := readEndpoint(e.Data)
			if n := len(e.Key) - 4; ok && n > 0 && of(member{binary.NativeEndian.Uint32(e.Key[n:]), a}) {
				l.Add(func(w *wire.Attrs) { table.Key(w, func(b []byte) []byte { return append(b, e.Key...) }) })
			}
		}
		l.End()
		if err = t.kernel.SendInParts(b); !errors.Is(err, unix.ENOENT) {
			return err
		}
		if err := t.kernel.Reopen(); err != nil {
			return err
		}
	}
	return err
}
