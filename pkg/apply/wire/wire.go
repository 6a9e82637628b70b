// Package wire writes messages to nf_tables: attributes, chains, rules. Inputs
// are the values of pkg/program/nft; the output is a batch of bytes, and what
// the kernel answers to it. It refuses statements it does not know, and holds
// no state.
package wire

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Attrs writes netlink attributes. It is append all the way down, because a
// start on a large cluster writes several hundred thousand of them.
type Attrs []byte

// Bytes writes an attribute.
func (w *Attrs) Bytes(kind uint16, value []byte) {
	at := w.Open(kind)
	*w = append(*w, value...)
	w.Close(at)
}

// Text ends with a zero.
func (w *Attrs) Text(kind uint16, s string) {
	at := w.Open(kind)
	*w = append(append(*w, s...), 0)
	w.Close(at)
}

// U32 is big-endian, as U64.
func (w *Attrs) U32(kind uint16, v uint32) {
	at := w.Open(kind)
	*w = binary.BigEndian.AppendUint32(*w, v)
	w.Close(at)
}

// U64 is big-endian.
func (w *Attrs) U64(kind uint16, v uint64) {
	at := w.Open(kind)
	*w = binary.BigEndian.AppendUint64(*w, v)
	w.Close(at)
}

// Open starts an attribute and returns where, for Close.
func (w *Attrs) Open(kind uint16) int {
	at := len(*w)
	*w = binary.NativeEndian.AppendUint16(*w, 0)
	*w = binary.NativeEndian.AppendUint16(*w, kind)
	return at
}

// Nest starts an attribute of attributes.
func (w *Attrs) Nest(kind uint16) int { return w.Open(kind | unix.NLA_F_NESTED) }

// Close ends the attribute that began at at.
func (w *Attrs) Close(at int) {
	binary.NativeEndian.PutUint16((*w)[at:], uint16(len(*w)-at))
	for len(*w)%4 != 0 {
		*w = append(*w, 0)
	}
}

// Batch is one transaction.
type Batch struct {
	table    string
	messages []netlink.Message
	size     int
}

// NewBatch is for changes of one table of family inet.
func NewBatch(table string) *Batch { return &Batch{table: table} }

// Table is the table's name.
func (b *Batch) Table() string { return b.table }

// Size is the number of bytes.
func (b *Batch) Size() int { return b.size }

// Add appends a message of which attrs is the body.
func (b *Batch) Add(kind int, flags netlink.HeaderFlags, attrs Attrs) {
	b.size += len(attrs)
	b.messages = append(b.messages, netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request | flags},
		Data:   append([]byte{unix.NFPROTO_INET, unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
}

// Append adds the messages of another batch.
func (b *Batch) Append(o *Batch) {
	b.messages, b.size = append(b.messages, o.messages...), b.size+o.size
}

func edge(kind netlink.HeaderType) netlink.Message {
	return netlink.Message{
		Header: netlink.Header{Type: kind, Flags: netlink.Request},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, unix.NFNL_SUBSYS_NFTABLES},
	}
}

// Send hands the batch to the kernel: all of it happens, or nothing.
func (b *Batch) Send(sock *netlink.Conn) error {
	if len(b.messages) == 0 {
		return nil
	}
	all := make([]netlink.Message, 0, len(b.messages)+2)
	all = append(all, edge(unix.NFNL_MSG_BATCH_BEGIN))
	all = append(all, b.messages...)
	// The kernel answers each message that fails, and this one.
	all[len(all)-1].Header.Flags |= netlink.Acknowledge
	all = append(all, edge(unix.NFNL_MSG_BATCH_END))
	if _, err := sock.SendMessages(all); err != nil {
		return fmt.Errorf("send batch of %d bytes: %w", b.size, err)
	}
	if _, err := sock.Receive(); err != nil {
		return fmt.Errorf("commit batch of %d bytes: %w", b.size, err)
	}
	return nil
}

// SendInParts sends a batch that is too large for one, in order, in parts of
// about so many bytes.
func (b *Batch) SendInParts(sock *netlink.Conn, size int) error {
	part := NewBatch(b.table)
	for _, m := range b.messages {
		part.messages = append(part.messages, m)
		if part.size += len(m.Data); part.size < size {
			continue
		}
		if err := part.Send(sock); err != nil {
			return err
		}
		part = NewBatch(b.table)
	}
	return part.Send(sock)
}
