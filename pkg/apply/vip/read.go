package vip

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/vip/wire"
	"poplin.dev/poplin/pkg/program/nft"
	"poplin.dev/poplin/pkg/program/vip"
)

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

// read learns what the kernel holds.
func (t *Table) read() error {
	p := vip.New()
	m := &mirror{program: &p, maps: map[string]bool{}, chains: map[string][]wire.Mark{}, picks: map[uint32]bool{}, clocks: map[uint32]bool{}, sticky: map[uint32]bool{}}
	maps, err := t.dump(unix.NFT_MSG_GETSET, func(w *wire.Attrs) { w.Text(unix.NFTA_SET_TABLE, Name) })
	if err != nil {
		return fmt.Errorf("list maps of table inet %s: %w", Name, err)
	}
	want := map[string]decl{}
	for _, d := range decls() {
		want[d.name] = d
	}
	for _, b := range maps {
		name := wire.String(wire.Find(b, unix.NFTA_SET_NAME))
		if d, known := want[name]; !known || !d.is(b) {
			m.foreign = true
			continue
		}
		m.maps[name] = true
		if err := t.readElements(name, wire.Number(wire.Find(b, setCount)), m); err != nil {
			return fmt.Errorf("list elements of map %s: %w", name, err)
		}
	}
	if err := t.readChains(m); err != nil {
		return err
	}
	m.note(p)
	t.mirror = m
	return nil
}

// is reports whether the kernel's description of a map is that of d.
func (d decl) is(b []byte) bool {
	_, key := shape(d.key)
	_, data := shape(d.data)
	if d.verdicts {
		data = wire.Number(wire.Find(b, unix.NFTA_SET_DATA_LEN))
	}
	const counted = unix.NFT_SET_MAP | unix.NFT_SET_INTERVAL | unix.NFT_SET_TIMEOUT | unix.NFT_SET_EVAL
	return wire.Number(wire.Find(b, unix.NFTA_SET_KEY_LEN)) == key && wire.Number(wire.Find(b, unix.NFTA_SET_DATA_LEN)) == data &&
		wire.Number(wire.Find(b, unix.NFTA_SET_FLAGS))&counted == d.flags()&counted
}

func (t *Table) readChains(m *mirror) error {
	chains, err := t.dump(unix.NFT_MSG_GETCHAIN, func(*wire.Attrs) {})
	if err != nil {
		return fmt.Errorf("list chains: %w", err)
	}
	base := map[string]nft.Chain{}
	for _, c := range vip.Chains(nil, nil) {
		base[c.Name] = c
	}
	for _, b := range chains {
		if wire.String(wire.Find(b, unix.NFTA_CHAIN_TABLE)) != Name {
			continue
		}
		name := wire.String(wire.Find(b, unix.NFTA_CHAIN_NAME))
		m.chains[name] = nil
		c := base[name]
		hook := wire.Find(b, unix.NFTA_CHAIN_HOOK)
		if (hook != nil) != (c.Hook != "") || hook != nil &&
			(wire.Number(wire.Find(hook, unix.NFTA_HOOK_HOOKNUM)) != wire.Hooks[c.Hook] || int32(wire.Number(wire.Find(hook, unix.NFTA_HOOK_PRIORITY))) != int32(c.Priority)) {
			m.foreign = true
		}
	}
	rules, err := t.dump(unix.NFT_MSG_GETRULE, func(w *wire.Attrs) { w.Text(unix.NFTA_RULE_TABLE, Name) })
	if err != nil {
		return fmt.Errorf("list rules of table inet %s: %w", Name, err)
	}
	for _, b := range rules {
		name := wire.String(wire.Find(b, unix.NFTA_RULE_CHAIN))
		var mark wire.Mark
		if data := wire.Find(b, unix.NFTA_RULE_USERDATA); len(data) == 2+len(mark) && data[0] == wire.UserMark {
			mark = wire.Mark(data[2:])
		}
		m.chains[name] = append(m.chains[name], mark)
	}
	return nil
}

// element is one of a listing.
type element struct {
	key, end, data []byte
	chain          string
	last           bool // of an interval
}

func (t *Table) elements(name string) ([]element, error) {
	messages, err := t.dump(unix.NFT_MSG_GETSETELEM, func(w *wire.Attrs) {
		w.Text(unix.NFTA_SET_ELEM_LIST_TABLE, Name)
		w.Text(unix.NFTA_SET_ELEM_LIST_SET, name)
	})
	if err != nil {
		return nil, err
	}
	var out []element
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
			out = append(out, element{
				key:   wire.Find(key, unix.NFTA_DATA_VALUE),
				end:   end,
				data:  wire.Find(b, unix.NFTA_SET_ELEM_DATA, unix.NFTA_DATA_VALUE),
				chain: wire.String(wire.Find(b, unix.NFTA_SET_ELEM_DATA, unix.NFTA_DATA_VERDICT, unix.NFTA_VERDICT_CHAIN)),
				last:  last,
			})
		}
	}
	return out, nil
}

// setCount is NFTA_SET_COUNT (6.17).
const setCount = 20

// readElements enters the elements of one map into the mirror.
func (t *Table) readElements(name string, count uint32, m *mirror) error {
	kind := name
	if n := len(name) - 1; name[n] == '4' || name[n] == '6' {
		kind = name[:n]
	}
	if kind == "affinity" {
		return nil // the packets' own
	}
	list, err := t.elements(name)
	// While the kernel enlarges a hash table, a listing can miss elements.
	// Where it tells how many there are, that is found out.
	for try := 0; err == nil && try < 10 && kind != "ranges" && count > uint32(len(list)); try++ {
		list, err = t.elements(name)
	}
	if err != nil {
		return err
	}
	if kind == "ranges" {
		readRanges(list, m.program.Ranges)
		return nil
	}
	for _, e := range list {
		if !m.enter(kind, e) {
			m.foreign = true
		}
	}
	return nil
}

// enter reports false for what cannot be ours.
func (m *mirror) enter(kind string, e element) bool {
	host := func(b []byte) uint32 {
		if len(b) < 4 {
			return 0
		}
		return binary.NativeEndian.Uint32(b)
	}
	switch kind {
	case "protocols":
		return true
	case "picks":
		m.picks[host(e.key)] = true
		return true
	case "clocks":
		m.clocks[host(e.key)] = true
		return true
	case "endpoints":
		a, ok := readEndpoint(e.data)
		if ok && len(e.key) == 8 {
			m.program.Endpoints[vip.Slot{Group: host(e.key), Index: host(e.key[4:])}] = a
		}
		return ok
	case "addresses", "hairpins":
		n := len(e.key)
		if kind == "hairpins" {
			n /= 2
		}
		a, ok := netip.AddrFromSlice(e.key[:n])
		if kind == "hairpins" {
			m.program.Hairpins[a] = struct{}{}
		} else {
			m.program.Addresses[a] = struct{}{}
		}
		return ok
	case "sources":
		n := (len(e.key) - 8) / 2
		f, ok := readFront(e.key[:max(len(e.key)-n, 0)])
		from, _ := netip.AddrFromSlice(e.key[len(e.key)-n:])
		to, _ := netip.AddrFromSlice(e.end[max(len(e.end)-n, 0):])
		m.program.Sources[vip.Source{Front: f, Clients: span(from, to)}] = struct{}{}
		return ok
	}
	f, ok := readFront(e.key)
	if !ok {
		return false
	}
	switch kind {
	case "frontends":
		m.program.Frontends[f] = vip.Value(host(e.data))
	case "outside":
		m.program.Outside[f] = vip.Value(host(e.data))
	case "timeouts":
		m.program.Timeouts[f] = host(e.data)
	case "fenced":
		m.program.Fenced[f] = struct{}{}
	}
	return true
}

// span is the prefix from one address to another.
func span(from, to netip.Addr) netip.Prefix {
	for bits := range from.BitLen() + 1 {
		if p := netip.PrefixFrom(from, bits); p == p.Masked() && last(p) == to {
			return p
		}
	}
	return netip.Prefix{}
}

// readRanges joins the starts and ends of intervals.
func readRanges(list []element, into map[netip.Prefix]struct{}) {
	ends := map[netip.Addr]bool{{}: true} // the last range of all needs no end
	for _, e := range list {
		if a, ok := netip.AddrFromSlice(e.key); ok && e.last {
			ends[a] = true
		}
	}
	for _, e := range list {
		a, ok := netip.AddrFromSlice(e.key)
		if !ok || e.last {
			continue
		}
		for bits := a.BitLen(); bits >= 0; bits-- {
			p := netip.PrefixFrom(a, bits)
			if p != p.Masked() {
				break
			}
			if ends[last(p).Next()] {
				into[p] = struct{}{}
				break
			}
		}
	}
}
