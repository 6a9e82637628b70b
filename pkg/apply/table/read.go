package table

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/program/nft"
)

// Element is one of a listing.
type Element struct {
	Key, End, Data []byte
	// Chain is the one that a verdict goes to.
	Chain string
	// Last marks the end of an interval.
	Last bool
}

// dump lists something of nf_tables.
func (t *Table) dump(kind int, ask func(w *wire.Attrs)) (list [][]byte, err error) {
	var w wire.Attrs
	ask(&w)
	for range 10 {
		list = nil
		err = wire.Dump(t.sock, unix.NFNL_SUBSYS_NFTABLES, kind, unix.NFPROTO_INET, w, func(entry []byte) {
			list = append(list, bytes.Clone(entry))
		})
		if !errors.Is(err, wire.ErrInterrupted) {
			break
		}
	}
	return list, err
}

// Look hands the elements of each map to enter and changes nothing; it reports
// false for a table that lacks something, or that is not as we make it.
func (t *Table) Look(enter func(name string, list []Element) bool) (ours bool, err error) {
	ours, err = t.read(enter)
	if errors.Is(err, unix.ENOENT) {
		return false, nil // there is no table
	}
	for _, m := range t.conf.Maps {
		ours = ours && t.maps[m.Name]
	}
	return ours, err
}

// read learns what the kernel holds; it reports false for a table that is not
// as we make it.
func (t *Table) read(enter func(name string, list []Element) bool) (ours bool, err error) {
	t.maps = map[string]bool{}
	maps, err := t.dump(unix.NFT_MSG_GETSET, func(w *wire.Attrs) { w.Text(unix.NFTA_SET_TABLE, t.conf.Name) })
	if err != nil {
		return false, fmt.Errorf("list maps of table inet %s: %w", t.conf.Name, err)
	}
	want := map[string]Map{}
	for _, m := range t.conf.Maps {
		want[m.Name] = m
	}
	ours = true
	for _, b := range maps {
		m, known := want[wire.String(wire.Find(b, unix.NFTA_SET_NAME))]
		if !known || !m.is(b) {
			ours = false
			continue
		}
		t.maps[m.Name] = true
		if m.Dynamic || m.Fixed != nil {
			continue // the packets' own, or never changed
		}
		list, err := t.complete(m, wire.Number(wire.Find(b, setCount)))
		if err != nil {
			return false, fmt.Errorf("list elements of map %s: %w", m.Name, err)
		}
		ours = enter(m.Name, list) && ours
	}
	hooks, err := t.readChains()
	return ours && hooks, err
}

// setCount is NFTA_SET_COUNT (6.17).
const setCount = 20

// complete lists the elements of a map. While the kernel enlarges a hash
// table, a listing can miss some; where it tells how many there are, that is
// found out.
func (t *Table) complete(m Map, count uint32) ([]Element, error) {
	list, err := t.Elements(m.Name)
	for try := 0; err == nil && try < 10 && !m.halves() && count > uint32(len(list)); try++ {
		list, err = t.Elements(m.Name)
	}
	return list, err
}

// halves: the kernel counts the two ends of an interval as it likes.
func (m Map) halves() bool { return m.Interval && len(m.Key) == 1 }

// Elements lists a map.
func (t *Table) Elements(name string) ([]Element, error) {
	messages, err := t.dump(unix.NFT_MSG_GETSETELEM, func(w *wire.Attrs) {
		w.Text(unix.NFTA_SET_ELEM_LIST_TABLE, t.conf.Name)
		w.Text(unix.NFTA_SET_ELEM_LIST_SET, name)
	})
	if err != nil {
		return nil, err
	}
	var out []Element
	seen := map[string]bool{} // or it can have some twice
	for _, m := range messages {
		for _, b := range wire.Each(wire.Find(m, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			key := wire.Find(b, unix.NFTA_SET_ELEM_KEY)
			last := wire.Number(wire.Find(b, unix.NFTA_SET_ELEM_FLAGS))&unix.NFT_SET_ELEM_INTERVAL_END != 0
			end := wire.Find(b, setElemKeyEnd, unix.NFTA_DATA_VALUE)
			id := string(key) + string(end)
			if last {
				id += "end"
			}
			if seen[id] {
				continue
			}
			seen[id] = true
			out = append(out, Element{
				Key:   wire.Find(key, unix.NFTA_DATA_VALUE),
				End:   end,
				Data:  wire.Find(b, unix.NFTA_SET_ELEM_DATA, unix.NFTA_DATA_VALUE),
				Chain: wire.String(wire.Find(b, unix.NFTA_SET_ELEM_DATA, unix.NFTA_DATA_VERDICT, unix.NFTA_VERDICT_CHAIN)),
				Last:  last,
			})
		}
	}
	return out, nil
}

// readChains learns which chains there are, with their rules' marks; it
// reports false if one has another hook than ours.
func (t *Table) readChains() (ours bool, err error) {
	t.chains = map[string][]wire.Mark{}
	chains, err := t.dump(unix.NFT_MSG_GETCHAIN, func(*wire.Attrs) {})
	if err != nil {
		return false, fmt.Errorf("list chains: %w", err)
	}
	base := map[string]nft.Chain{}
	for _, c := range t.conf.Hooked {
		base[c.Name] = c
	}
	ours = true
	for _, b := range chains {
		if wire.String(wire.Find(b, unix.NFTA_CHAIN_TABLE)) != t.conf.Name {
			continue
		}
		name := wire.String(wire.Find(b, unix.NFTA_CHAIN_NAME))
		t.chains[name] = nil
		ours = ours && sameHook(base[name], b)
	}
	rules, err := t.dump(unix.NFT_MSG_GETRULE, func(w *wire.Attrs) { w.Text(unix.NFTA_RULE_TABLE, t.conf.Name) })
	if err != nil {
		return false, fmt.Errorf("list rules of table inet %s: %w", t.conf.Name, err)
	}
	t.label = nft.Label{}
	for _, b := range rules {
		name := wire.String(wire.Find(b, unix.NFTA_RULE_CHAIN))
		if l, ok := wire.LabelOf(b); ok {
			t.label = l
		}
		var mark wire.Mark
		if data := wire.Find(b, unix.NFTA_RULE_USERDATA); len(data) == 2+len(mark) && data[0] == wire.UserMark {
			mark = wire.Mark(data[2:])
		}
		t.chains[name] = append(t.chains[name], mark)
	}
	return ours, nil
}

// sameHook compares a chain with the kernel's description of one.
func sameHook(c nft.Chain, b []byte) bool {
	hook := wire.Find(b, unix.NFTA_CHAIN_HOOK)
	if hook == nil || c.Hook == "" {
		return hook == nil && c.Hook == ""
	}
	return wire.Number(wire.Find(hook, unix.NFTA_HOOK_HOOKNUM)) == wire.Hooks[c.Hook] &&
		int32(wire.Number(wire.Find(hook, unix.NFTA_HOOK_PRIORITY))) == int32(c.Priority) &&
		wire.String(wire.Find(b, unix.NFTA_CHAIN_TYPE)) == c.Type
}
