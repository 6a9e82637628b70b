package wire

import (
	"bytes"
	"math"
)

const (
	// maxOverhead is what chunks may have besides data, beyond a line of
	// usual length for each: extensions, or one chunk for each byte.
	maxOverhead = 16 << 10
	// usualOverhead of a chunk is its two line ends and a few digits; small
	// chunks earn a part of it.
	usualOverhead = 16
	maxTrailer    = 8 << 10
	usualTrailer  = 64
)

// state is where in a chunked body a reader is.
type state uint8

const (
	inSize state = iota
	inExtension
	afterSize // a line feed is due
	inData
	afterData // CR is due
	endOfData // LF is due
	inTrailer
	ended
)

// Body takes a message's body out of its coding.
type Body struct {
	chunked bool
	state   state
	digits  int
	left    int64 // of the body, or of the chunk
	spent   int   // overhead
	trailer []byte
}

// Begin prepares for a body of a length.
func (b *Body) Begin(length int64, chunked bool) {
	*b = Body{chunked: chunked, left: length, trailer: b.trailer[:0]}
	if cap(b.trailer) > usualTrailer {
		b.trailer = nil
	}
	if !chunked {
		b.state = inData
		if length == 0 {
			b.state = ended
		}
	}
}

// BeginToEnd prepares for one that ends with the connection.
func (b *Body) BeginToEnd() { b.Begin(math.MaxInt64, false) }

// Done reports whether the end was seen.
func (b *Body) Done() bool { return b.state == ended }

// Take moves what is data to the front of p: n bytes. used is how much of p
// belongs to the body, all of it unless the body is done.
func (b *Body) Take(p []byte) (n, used int, err error) {
	if !b.chunked {
		n = int(min(int64(len(p)), b.left))
		if b.left -= int64(n); b.left == 0 {
			b.state = ended
		}
		return n, n, nil
	}
	for used < len(p) && b.state != ended {
		if b.state == inData {
			k := int(min(int64(len(p)-used), b.left))
			n += copy(p[n:], p[used:used+k])
			used += k
			if b.left -= int64(k); b.left == 0 {
				b.state = afterData
			}
			continue
		}
		if err := b.step(p[used]); err != nil {
			return n, used, err
		}
		used++
	}
	return n, used, nil
}

// step takes one byte that is not data.
func (b *Body) step(c byte) error {
	if b.spent++; b.spent > maxOverhead {
		return errLarge
	}
	switch b.state {
	case inSize:
		switch {
		case is[c]&inHex != 0:
			if b.digits++; b.digits > 15 {
				return errChunk
			}
			b.left = b.left<<4 | int64(digit(c))
		case b.digits == 0:
			return errChunk
		case c == '\r':
			b.state = afterSize
		case c == ';':
			b.state = inExtension
		default:
			return errChunk
		}
	case inExtension:
		switch {
		case c == '\r':
			b.state = afterSize
		case is[c]&inValue == 0:
			return errChunk
		}
	case afterSize:
		if c != '\n' {
			return errChunk
		}
		b.state, b.digits = inData, 0
		if b.left == 0 {
			b.state = inTrailer
		}
		b.spent = max(b.spent-usualOverhead-int(min(b.left, maxOverhead)), 0)
	case afterData:
		if c != '\r' {
			return errChunk
		}
		b.state = endOfData
	case endOfData:
		if c != '\n' {
			return errChunk
		}
		b.state, b.left = inSize, 0
	case inTrailer:
		return b.inTrailer(c)
	}
	return nil
}

// inTrailer collects lines until an empty one.
func (b *Body) inTrailer(c byte) error {
	if len(b.trailer) == maxTrailer {
		return errLarge
	}
	b.trailer = append(b.trailer, c)
	t := b.trailer
	if c != '\n' {
		return nil
	}
	switch {
	case len(t) < 2 || t[len(t)-2] != '\r':
		return errTrailer
	case len(t) == 2 || bytes.HasSuffix(t, crlf2):
		b.state = ended
	}
	return nil
}

// Trailer is the headers that came after the chunks.
func (b *Body) Trailer() ([]Field, error) {
	if len(b.trailer) <= 2 {
		return nil, nil
	}
	return fields(nil, string(b.trailer))
}

func digit(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}
