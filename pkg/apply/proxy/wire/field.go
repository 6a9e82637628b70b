// Package wire reads HTTP/1.1 messages (RFC 9112) as narrowly as they are
// defined. Inputs are bytes; outputs are the parts of a message's head, how
// long its body is, and the body without its coding. It refuses whatever two
// readers could cut in different places: line ends without a carriage return,
// folded lines, spaces before a colon, two lengths, a length beside a coding,
// codings it does not know. It allocates nothing of its own.
package wire

import (
	"bytes"
	"strings"

	"poplin.dev/poplin/pkg/apply/proxy/header"
)

// Error is why a message was refused, with the status that says so.
type Error struct {
	Status int
	Text   string
}

func (e *Error) Error() string { return e.Text }

func bad(text string) *Error { return &Error{400, text} }

// What is refused.
var (
	errEmpty   = bad("the message begins with an empty line")
	errLine    = bad("a line does not end with CRLF")
	errRequest = bad("the request line is malformed")
	errName    = bad("a header's name is malformed")
	errValue   = bad("a header's value has a control character")
	errFold    = bad("a header is folded")
	errMany    = &Error{431, "there are too many headers"}
	errHost    = bad("there is not one Host header")
	errLengths = bad("there is more than one Content-Length")
	errLength  = bad("Content-Length is no number")
	errBoth    = bad("there are Content-Length and Transfer-Encoding")
	errCoding  = &Error{501, "Transfer-Encoding is not chunked"}
	errOld     = bad("HTTP/1.0 has no Transfer-Encoding")
	errStatus  = bad("the status line is malformed")
	errChunk   = bad("a chunk is malformed")
	errTrailer = bad("the trailer is malformed")
	errLarge   = bad("chunks have too much besides data")
)

// maxFields is how many headers a message may have: no program sends as many.
const maxFields = 200

// Field is one header.
type Field struct {
	Name, Value string
	Role        header.Role
}

// End finds the end of a message's head in b, past its empty line; the first
// seen bytes were looked at before. It returns 0 where the head goes on.
func End(b []byte, seen int) (int, error) {
	if i := bytes.Index(b[max(seen-3, 0):], crlf2); i >= 0 {
		b = b[:max(seen-3, 0)+i+4]
		if b[0] == '\r' {
			return 0, errEmpty
		}
		return len(b), nil
	}
	// Waiting is in vain if a line has ended in another way.
	for i := seen; i < len(b); i++ {
		j := bytes.IndexByte(b[i:], '\n')
		if j < 0 {
			break
		}
		if i += j; i == 0 || b[i-1] != '\r' {
			return 0, errLine
		}
		if i == 1 {
			return 0, errEmpty
		}
	}
	return 0, nil
}

var crlf2 = []byte("\r\n\r\n")

// line cuts the first line off.
func line(s string) (first, rest string, err error) {
	i := strings.IndexByte(s, '\n')
	if i < 1 || s[i-1] != '\r' {
		return "", "", errLine
	}
	return s[:i-1], s[i+1:], nil
}

// fields appends the headers of s, which ends with an empty line.
func fields(to []Field, s string) ([]Field, error) {
	for {
		text, rest, err := line(s)
		if err != nil {
			return to, err
		}
		if s = rest; text == "" {
			return to, nil
		}
		if len(to) == maxFields {
			return to, errMany
		}
		if text[0] == ' ' || text[0] == '\t' {
			return to, errFold
		}
		colon := strings.IndexByte(text, ':')
		if colon < 0 || !isToken(text[:colon]) {
			return to, errName
		}
		name, value := text[:colon], trim(text[colon+1:])
		for i := range len(value) {
			if is[value[i]]&inValue == 0 {
				return to, errValue
			}
		}
		to = append(to, Field{name, value, header.RoleOf(name)})
	}
}

// trim removes the white space that may stand around a value.
func trim(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// What a byte may be.
const (
	inToken = 1 << iota // of a name or method (RFC 9110, section 5.6.2)
	inValue             // of a header's value (section 5.5), other than ASCII too
	inPath              // of a path (RFC 3986, section 3.3), and brackets
	inQuery             // of a query: all that is visible
	inHex
)

var is = func() (t [256]uint8) {
	for c := range 256 {
		b := byte(c)
		letter := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
		digit := b >= '0' && b <= '9'
		if letter || digit || strings.IndexByte("!#$%&'*+-.^_`|~", b) >= 0 {
			t[c] |= inToken
		}
		if b >= ' ' && b != 0x7f || b == '\t' {
			t[c] |= inValue
		}
		if letter || digit || strings.IndexByte("-._~!$&'()*+,;=:@/%[]", b) >= 0 {
			t[c] |= inPath
		}
		if b > ' ' && b < 0x7f && b != '#' {
			t[c] |= inQuery
		}
		if digit || b >= 'a' && b <= 'f' || b >= 'A' && b <= 'F' {
			t[c] |= inHex
		}
	}
	return t
}()

func isToken(s string) bool {
	for i := range len(s) {
		if is[s[i]]&inToken == 0 {
			return false
		}
	}
	return s != ""
}

// length reads a Content-Length. Eighteen digits always fit.
func length(s string) (n int64, err error) {
	if s == "" || len(s) > 18 {
		return 0, errLength
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, errLength
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, nil
}

// Lists reports whether a comma-separated list has a token.
func Lists(list, token string) bool {
	for list != "" {
		var item string
		item, list, _ = strings.Cut(list, ",")
		if strings.EqualFold(trim(item), token) {
			return true
		}
	}
	return false
}

// fewFields is how many a message usually has at most.
const fewFields = 32

// recycle empties a list for the next message, so that it refers to nothing of
// this one.
func recycle(list []Field) []Field {
	if cap(list) > fewFields {
		return nil
	}
	clear(list)
	return list[:0]
}

// head is what both kinds of messages have.
type head struct {
	Fields []Field
	// Length of the body; Chunked where it is not known.
	Length  int64
	Chunked bool
	// Close and Keep say that Connection names "close" and "keep-alive".
	Close, Keep bool
	// named says that Connection names other headers.
	named bool
	sized bool // there is a Content-Length
}

// frame reads what the headers say about the body and the connection.
func (h *head) frame(f *Field, minor int) error {
	switch f.Role {
	case header.ContentLength:
		if h.sized {
			return errLengths
		}
		var err error
		h.sized = true
		h.Length, err = length(f.Value)
		return err
	case header.TransferEncoding:
		switch {
		case minor == 0:
			return errOld
		case h.Chunked || !strings.EqualFold(f.Value, "chunked"):
			return errCoding
		}
		h.Chunked = true
	case header.Trailer:
		for _, name := range []string{"Transfer-Encoding", "Content-Length", "Trailer"} {
			if Lists(f.Value, name) {
				return errTrailer
			}
		}
	case header.Connection:
		for list := f.Value; list != ""; {
			var item string
			item, list, _ = strings.Cut(list, ",")
			switch item = trim(item); {
			case strings.EqualFold(item, "close"):
				h.Close = true
			case strings.EqualFold(item, "keep-alive"):
				h.Keep = true
			case item != "":
				h.named = true
			}
		}
	}
	return nil
}

// Drops reports whether Connection names this header, which then ends here.
func (h *head) Drops(name string) bool {
	if !h.named {
		return false
	}
	for i := range h.Fields {
		if f := &h.Fields[i]; f.Role == header.Connection && Lists(f.Value, name) {
			return true
		}
	}
	return false
}
