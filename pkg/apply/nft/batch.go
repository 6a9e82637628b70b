package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/program"
)

// batch is one transaction. It writes its own messages and leaves only
// expressions and reading to google/nftables, because version 0.3.0 drops the
// flags of tables and of masquerade with ports, cuts long lists of elements
// off without a word, and cannot be told to put a table into a batch with
// what is in it.
type batch struct {
	sock     *netlink.Conn
	table    string
	messages []netlink.Message
	size     int   // of the messages, in bytes
	err      error // the first one; reported by commit
}

func (t *Table) batch() *batch { return &batch{sock: t.sock, table: t.table.Name} }

// fail has commit report err instead of sending anything.
func (b *batch) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

// commit sends the batch: all of it happens, or nothing.
func (b *batch) commit() error {
	if b.err != nil || len(b.messages) == 0 {
		return b.err
	}
	// The kernel answers every message that fails, and the last one.
	b.messages[len(b.messages)-1].Header.Flags |= netlink.Acknowledge
	all := slices.Concat(
		[]netlink.Message{edge(unix.NFNL_MSG_BATCH_BEGIN)}, b.messages, []netlink.Message{edge(unix.NFNL_MSG_BATCH_END)})
	b.messages, b.size = nil, 0
	if _, err := b.sock.SendMessages(all); err != nil {
		return fmt.Errorf("send batch: %w", err)
	}
	if _, err := b.sock.Receive(); err != nil {
		return fmt.Errorf("commit batch: %w", err)
	}
	return nil
}

func edge(kind netlink.HeaderType) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request},
		Data:   nfgenmsg(unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES),
	}
}

func nfgenmsg(family uint8, resource uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{family, unix.NFNETLINK_V0}, resource)
}

// add appends a message with the attributes that encode writes.
func (b *batch) add(kind int, flags netlink.HeaderFlags, encode func(*netlink.AttributeEncoder)) {
	attrs := b.encode(encode)
	b.size += len(attrs)
	b.messages = append(b.messages, netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind),
			Flags: netlink.Request | flags,
		},
		Data: append(nfgenmsg(unix.NFPROTO_INET, 0), attrs...),
	})
}

func (b *batch) encode(encode func(*netlink.AttributeEncoder)) []byte {
	ae := netlink.NewAttributeEncoder()
	ae.ByteOrder = binary.BigEndian
	encode(ae)
	data, err := ae.Encode()
	if err != nil {
		b.fail(fmt.Errorf("encode attributes: %w", err))
	}
	return data
}

// nested is an attribute of attributes.
func (b *batch) nested(ae *netlink.AttributeEncoder, kind uint16, encode func(*netlink.AttributeEncoder)) {
	ae.Bytes(kind|unix.NLA_F_NESTED, b.encode(encode))
}

func (b *batch) addTable(flags uint32) {
	b.add(unix.NFT_MSG_NEWTABLE, netlink.Create, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_TABLE_NAME, b.table)
		ae.Uint32(unix.NFTA_TABLE_FLAGS, flags)
	})
}

func (b *batch) delTable(uint32) {
	b.add(unix.NFT_MSG_DELTABLE, 0, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_TABLE_NAME, b.table)
	})
}

func (b *batch) addChain(c program.Chain) {
	hook, ok := hooks[c.Hook]
	if !ok && c.Hook != "" {
		b.fail(fmt.Errorf("encode chain %s: unknown hook %q", c.Name, c.Hook))
	}
	b.add(unix.NFT_MSG_NEWCHAIN, netlink.Create, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_CHAIN_TABLE, b.table)
		ae.String(unix.NFTA_CHAIN_NAME, c.Name)
		if !ok {
			return
		}
		b.nested(ae, unix.NFTA_CHAIN_HOOK, func(ae *netlink.AttributeEncoder) {
			ae.Uint32(unix.NFTA_HOOK_HOOKNUM, uint32(hook))
			ae.Uint32(unix.NFTA_HOOK_PRIORITY, uint32(int32(c.Priority)))
		})
		ae.Uint32(unix.NFTA_CHAIN_POLICY, 1) // NF_ACCEPT
		ae.String(unix.NFTA_CHAIN_TYPE, c.Type)
	})
}

func (b *batch) delChain(name string) {
	b.add(unix.NFT_MSG_DELCHAIN, 0, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_CHAIN_TABLE, b.table)
		ae.String(unix.NFTA_CHAIN_NAME, name)
	})
}

func (b *batch) addSet(s program.Set, id uint32) {
	key := setTypes[s.Family]
	b.add(unix.NFT_MSG_NEWSET, netlink.Create, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_SET_TABLE, b.table)
		ae.String(unix.NFTA_SET_NAME, s.Name)
		ae.Uint32(unix.NFTA_SET_FLAGS, unix.NFT_SET_INTERVAL)
		ae.Uint32(unix.NFTA_SET_KEY_TYPE, key.GetNFTMagic()) // for nft, the kernel does not care
		ae.Uint32(unix.NFTA_SET_KEY_LEN, key.Bytes)
		ae.Uint32(unix.NFTA_SET_ID, id)
	})
}

func (b *batch) delSet(name string) {
	b.add(unix.NFT_MSG_DELSET, 0, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_SET_TABLE, b.table)
		ae.String(unix.NFTA_SET_NAME, name)
	})
}

func (b *batch) addCounter(name string) {
	b.add(unix.NFT_MSG_NEWOBJ, netlink.Create, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_OBJ_TABLE, b.table)
		ae.String(unix.NFTA_OBJ_NAME, name)
		ae.Uint32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
		b.nested(ae, unix.NFTA_OBJ_DATA, func(ae *netlink.AttributeEncoder) {
			ae.Uint64(unix.NFTA_COUNTER_PACKETS, 0)
			ae.Uint64(unix.NFTA_COUNTER_BYTES, 0)
		})
	})
}

func (b *batch) delCounter(name string) {
	b.add(unix.NFT_MSG_DELOBJ, 0, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_OBJ_TABLE, b.table)
		ae.String(unix.NFTA_OBJ_NAME, name)
		ae.Uint32(unix.NFTA_OBJ_TYPE, unix.NFT_OBJECT_COUNTER)
	})
}

func (b *batch) addElements(set string, list []netip.Prefix) {
	b.elements(unix.NFT_MSG_NEWSETELEM, netlink.Create, set, list)
}

func (b *batch) delElements(set string, list []netip.Prefix) {
	b.elements(unix.NFT_MSG_DELSETELEM, 0, set, list)
}

// perMessage elements fit into the 64 KiB of a netlink attribute: an IPv6
// interval takes two times 36 bytes.
const perMessage = 800

// largest is the size from which on elements go without waiting for the rest
// of the batch: what a socket may send at once has an end.
const largest = bufferSize / 4

func (b *batch) elements(kind int, flags netlink.HeaderFlags, set string, list []netip.Prefix) {
	for chunk := range slices.Chunk(list, perMessage) {
		b.add(kind, flags, func(ae *netlink.AttributeEncoder) {
			ae.String(unix.NFTA_SET_ELEM_LIST_TABLE, b.table)
			ae.String(unix.NFTA_SET_ELEM_LIST_SET, set)
			b.nested(ae, unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(ae *netlink.AttributeEncoder) {
				for _, e := range encodeElements(chunk) {
					b.element(ae, e)
				}
			})
		})
		if b.size > largest {
			b.fail(b.commit())
		}
	}
}

func (b *batch) element(ae *netlink.AttributeEncoder, e nftables.SetElement) {
	b.nested(ae, unix.NFTA_LIST_ELEM, func(ae *netlink.AttributeEncoder) {
		b.nested(ae, unix.NFTA_SET_ELEM_KEY, func(ae *netlink.AttributeEncoder) {
			ae.Bytes(unix.NFTA_DATA_VALUE, e.Key)
		})
		if e.IntervalEnd {
			ae.Uint32(unix.NFTA_SET_ELEM_FLAGS, unix.NFT_SET_ELEM_INTERVAL_END)
		}
	})
}

func (b *batch) addRule(chain string, r program.Rule) {
	exprs, err := encodeRule(r)
	if err != nil {
		b.fail(err)
	}
	b.add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_RULE_TABLE, b.table)
		ae.String(unix.NFTA_RULE_CHAIN, chain)
		b.nested(ae, unix.NFTA_RULE_EXPRESSIONS, func(ae *netlink.AttributeEncoder) {
			for _, e := range exprs {
				ae.Bytes(unix.NFTA_LIST_ELEM|unix.NLA_F_NESTED, b.expression(e))
			}
		})
		ae.Bytes(unix.NFTA_RULE_USERDATA, userDataOf(r))
	})
}

// expression is a rule's single step.
func (b *batch) expression(e expr.Any) []byte {
	if m, ok := e.(*expr.Masq); ok && m.ToPorts {
		return b.encode(func(ae *netlink.AttributeEncoder) {
			ae.String(unix.NFTA_EXPR_NAME, "masq")
			b.nested(ae, unix.NFTA_EXPR_DATA, func(ae *netlink.AttributeEncoder) {
				ae.Uint32(unix.NFTA_MASQ_FLAGS, unix.NF_NAT_RANGE_PROTO_SPECIFIED|unix.NF_NAT_RANGE_PROTO_RANDOM_FULLY)
				ae.Uint32(unix.NFTA_MASQ_REG_PROTO_MIN, m.RegProtoMin)
				ae.Uint32(unix.NFTA_MASQ_REG_PROTO_MAX, m.RegProtoMax)
			})
		})
	}
	data, err := expr.Marshal(unix.NFPROTO_INET, e)
	if err != nil {
		b.fail(fmt.Errorf("encode %T: %w", e, err))
	}
	return data
}

// delRules empties a chain.
func (b *batch) delRules(chain string) {
	b.add(unix.NFT_MSG_DELRULE, 0, func(ae *netlink.AttributeEncoder) {
		ae.String(unix.NFTA_RULE_TABLE, b.table)
		ae.String(unix.NFTA_RULE_CHAIN, chain)
	})
}
