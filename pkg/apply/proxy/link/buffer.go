package link

import "sync"

const (
	// room is what stands free before what was read, so that a longer head
	// can take a head's place; tail is for the end of a chunk and the last.
	room = 1 << 10
	tail = 16
	// size is what is read at once.
	size = 64 << 10
)

// Buffer is memory that a message passes through.
type Buffer struct {
	b     []byte
	start int
	end   int
}

var buffers = sync.Pool{New: func() any { return &Buffer{b: make([]byte, room+size+tail)} }}

// NewBuffer takes an empty one.
func NewBuffer() *Buffer {
	b := buffers.Get().(*Buffer)
	b.start, b.end = room, room
	return b
}

// Free gives it back.
func (b *Buffer) Free() {
	if len(b.b) == room+size+tail {
		buffers.Put(b)
	}
}

// Bytes is what was read and not dropped.
func (b *Buffer) Bytes() []byte { return b.b[b.start:b.end] }

// Drop forgets the first n bytes.
func (b *Buffer) Drop(n int) { b.start += n }

// Cut leaves the first n bytes.
func (b *Buffer) Cut(n int) { b.end = b.start + n }

// Reset makes all of it free again.
func (b *Buffer) Reset() { b.start, b.end = room, room }

// Space is what may be read into; Added says how much was.
func (b *Buffer) Space() []byte { return b.b[b.end : len(b.b)-tail] }

// Added takes note of n bytes read into Space.
func (b *Buffer) Added(n int) { b.end += n }

// Grow makes space, to hold at most limit bytes.
func (b *Buffer) Grow(limit int) bool {
	held := b.end - b.start
	if held >= limit {
		return false
	}
	next := make([]byte, room+min(2*max(held, size), limit)+tail)
	copy(next[room:], b.Bytes())
	b.b, b.start, b.end = next, room, room+held
	return true
}

// Prepend puts p before what was read, if there is room.
func (b *Buffer) Prepend(p []byte) bool {
	if len(p) > b.start {
		return false
	}
	b.start -= copy(b.b[b.start-len(p):], p)
	return true
}

// Append puts p behind it.
func (b *Buffer) Append(p []byte) {
	if len(p) > len(b.b)-b.end {
		b.b = append(b.b[:b.end:b.end], make([]byte, len(p)+tail)...)
	}
	b.end += copy(b.b[b.end:], p)
}
