package apply

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/hostport/plan"
	"poplin.dev/poplin/plugins/wire"
)

// Name is the table's name; its family is inet. It has no owner: each call of
// the plugin is a process of its own.
const Name = "poplin-hostport"

// Numbers by which nft knows the types of a map's fields.
const (
	typeIPv4 = 7 + iota
	typeIPv6
	typeProtocol = 12
	typeService  = 13
)

// set is a map or set of the table. Their number is constant: what changes is
// elements.
type set struct {
	name      string
	key, data []uint32 // types
}

var sets = []set{
	{"hosts4", []uint32{typeIPv4, typeProtocol, typeService}, []uint32{typeIPv4, typeService}},
	{"hosts6", []uint32{typeIPv6, typeProtocol, typeService}, []uint32{typeIPv6, typeService}},
	{"any4", []uint32{typeProtocol, typeService}, []uint32{typeIPv4, typeService}},
	{"any6", []uint32{typeProtocol, typeService}, []uint32{typeIPv6, typeService}},
	// A pod beside itself: what it sends to itself by way of the node.
	{"hairpin4", []uint32{typeIPv4, typeIPv4}, nil},
	{"hairpin6", []uint32{typeIPv6, typeIPv6}, nil},
}

// shape is how nft and the kernel see fields side by side.
func shape(fields []uint32) (kind, size uint32) {
	for _, f := range fields {
		kind = kind<<6 | f
		size += 4 // a register
		if f == typeIPv6 {
			size += 12
		}
	}
	return kind, size
}

// item is an element of one set.
type item struct{ key, data []byte }

// items is what elements come to, by the set's name.
func items(elements []plan.Element) map[string][]item {
	m := map[string][]item{}
	for _, e := range elements {
		family := "6"
		if e.Pod.Is4() {
			family = "4"
		}
		key := concat(field8(uint8(e.Protocol)), field16(e.HostPort))
		name := "any" + family
		if !e.Host.IsUnspecified() {
			key, name = concat(e.Host.AsSlice(), key), "hosts"+family
		}
		m[name] = append(m[name], item{key, concat(e.Pod.AsSlice(), field16(e.PodPort))})
		self := item{key: concat(e.Pod.AsSlice(), e.Pod.AsSlice())}
		if same := func(i item) bool { return slices.Equal(i.key, self.key) }; !slices.ContainsFunc(m["hairpin"+family], same) {
			m["hairpin"+family] = append(m["hairpin"+family], self)
		}
	}
	return m
}

func concat(fields ...[]byte) []byte { return slices.Concat(fields...) }

// A register is four bytes; a shorter field stands at its beginning.
func field8(v uint8) []byte   { return []byte{v, 0, 0, 0} }
func field16(v uint16) []byte { return append(binary.BigEndian.AppendUint16(nil, v), 0, 0) }

// batch writes one transaction.
type batch struct{ messages []wire.Message }

func newBatch() *batch {
	return &batch{[]wire.Message{edge(unix.NFNL_MSG_BATCH_BEGIN)}}
}

func edge(kind uint16) wire.Message {
	return wire.Message{Kind: kind, Body: []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES}}
}

// end is the whole batch; its last change is the one to wait for.
func (b *batch) end() []wire.Message {
	b.messages[len(b.messages)-1].Flags |= unix.NLM_F_ACK
	return append(b.messages, edge(unix.NFNL_MSG_BATCH_END))
}

func (b *batch) add(kind, flags uint16, w wire.Attrs) {
	b.messages = append(b.messages, request(kind, flags, w))
}

func request(kind, flags uint16, w wire.Attrs) wire.Message {
	return wire.Message{
		Kind: unix.NFNL_SUBSYS_NFTABLES<<8 | kind, Flags: flags,
		Body: append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, w...),
	}
}

// named begins what is about one thing of the table. The attribute of the
// table's name is number 1 in every kind of message, that of the thing's 2.
func named(name string) (w wire.Attrs) {
	w.Text(1, Name)
	if name != "" {
		w.Text(2, name)
	}
	return w
}

func (b *batch) table() {
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, named(""))
}

func (b *batch) noTable() { b.add(unix.NFT_MSG_DELTABLE, 0, named("")) }

func (b *batch) set(s set, id uint32) {
	w := named(s.name)
	kind, size := shape(s.key)
	w.Net(unix.NFTA_SET_KEY_TYPE, kind)
	w.Net(unix.NFTA_SET_KEY_LEN, size)
	w.Net(unix.NFTA_SET_ID, id)
	flags := uint32(0)
	if s.data != nil {
		flags = unix.NFT_SET_MAP
		kind, size = shape(s.data)
		w.Net(unix.NFTA_SET_DATA_TYPE, kind)
		w.Net(unix.NFTA_SET_DATA_LEN, size)
	}
	w.Net(unix.NFTA_SET_FLAGS, flags)
	b.add(unix.NFT_MSG_NEWSET, unix.NLM_F_CREATE, w)
}

// perMessage elements fit into the 64 KiB of one attribute.
const perMessage = 500

// fill replaces a set's elements.
func (b *batch) fill(name string, list []item) {
	b.add(unix.NFT_MSG_DELSETELEM, 0, named(name))
	for chunk := range slices.Chunk(list, perMessage) {
		b.add(unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE, elements(name, chunk))
	}
}

func elements(name string, list []item) wire.Attrs {
	w := named(name)
	w.Nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS, func() {
		for _, i := range list {
			w.Nest(unix.NFTA_LIST_ELEM, func() {
				value(&w, unix.NFTA_SET_ELEM_KEY, i.key)
				if i.data != nil {
					value(&w, unix.NFTA_SET_ELEM_DATA, i.data)
				}
			})
		}
	})
	return w
}

func value(w *wire.Attrs, kind uint16, v []byte) {
	w.Nest(kind, func() { w.Bytes(unix.NFTA_DATA_VALUE, v) })
}

// loopback4 is the first byte of 127.0.0.0/8.
const loopback4 = 127

var loopback6 = netip.IPv6Loopback().AsSlice()
